// A peer: node and ws, with its loop over the clients. It stores nothing.
const { createServer } = require("node:http");
const { WebSocketServer } = require("ws");

const groups = new Map();
const server = createServer((request, response) => {
  const [, kind, group] = request.url.split("/");
  if (kind !== "pub") return response.end();
  const parts = [];
  request.on("data", (part) => parts.push(part)).on("end", () => {
    const text = Buffer.concat(parts);
    for (const socket of groups.get(group) ?? []) socket.send(text, { binary: false });
    response.end();
  });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket, request) => {
  const group = request.url.split("/")[2];
  if (!groups.has(group)) groups.set(group, new Set());
  groups.get(group).add(socket);
  socket.on("close", () => groups.get(group).delete(socket));
});
server.keepAliveTimeout = 60_000;
server.listen(Number(process.argv[2]), "127.0.0.1", 4096);

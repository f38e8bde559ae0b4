// A peer: Socket.IO on node, with rooms. It stores nothing.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const server = createServer((request, response) => {
  const [, kind, group] = request.url.split("/");
  if (kind !== "pub") return response.end();
  const parts = [];
  request.on("data", (part) => parts.push(part)).on("end", () => {
    io.to(group).emit("entry", Buffer.concat(parts).toString());
    response.end();
  });
});
const io = new Server({
  serveClient: false,
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  pingInterval: 600_000, // what reads here answers WebSocket's pings, and not its own
});
io.attach(server);
io.on("connection", (socket) => socket.join(socket.handshake.query.group));
server.keepAliveTimeout = 60_000;
server.listen(Number(process.argv[2]), "127.0.0.1", 4096);

// A peer: Bun's built-in server (uWebSockets), with its publish to a topic. It stores nothing.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  async fetch(request, server) {
    const [, kind, group] = new URL(request.url).pathname.split("/");
    if (kind === "ws") return server.upgrade(request, { data: { group } }) ? undefined : new Response("", { status: 400 });
    if (kind === "pub") server.publish(group, await request.text());
    return new Response("");
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) { socket.subscribe(socket.data.group); },
    message() {},
  },
});

// A relay on Bun of the deployed design, at its best: parse, look the target up in a Map, send on.
// Left out in its favour: the line that the deployed one logs for each message, its counters, and the
// broadcast of every join and leave. MODE=reencode serialises again, as the deployed one does; MODE=raw sends on
// what came. A binary message is ours: a byte, 16 bytes of the session's id, data; the same lookup without JSON.
const reencode = process.env.MODE !== "raw";
const peers = new Map();
const sessions = new Map();
const decoder = new TextDecoder();

function register(ws, kind, payload) {
  ws.data.node = payload.nodeID;
  peers.set(payload.nodeID, ws);
  ws.send(JSON.stringify({ registerAck: { nodeID: payload.nodeID, registeredAt: 0, ttlSeconds: 300 } }));
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    if (server.upgrade(request, { data: {} })) return;
    return new Response("not found", { status: 404 });
  },
  websocket: {
    maxPayloadLength: 1 << 21,
    perMessageDeflate: false,
    backpressureLimit: 1 << 26,
    idleTimeout: 600,
    message(ws, raw) {
      if (typeof raw !== "string") {
        const session = sessions.get(raw.latin1Slice(1, 17));
        if (session) (session[0] === ws ? session[1] : session[0]).send(raw);
        return;
      }
      const message = JSON.parse(raw);
      const kind = "type" in message ? message.type : Object.keys(message)[0];
      const payload = "type" in message ? message.payload : message[kind];
      if (kind === "register") return register(ws, kind, payload);
      const target = peers.get(payload.toNodeID);
      if (!target) return ws.send(JSON.stringify({ error: { code: "peer_not_found", message: "" } }));
      if (kind === "relayOpen") sessions.set(Buffer.from(payload.sessionID, "hex").latin1Slice(), [ws, target]);
      target.send(reencode ? JSON.stringify(message) : raw);
    },
  },
});
console.log(`listening on ws://127.0.0.1:${server.port}/ws`);

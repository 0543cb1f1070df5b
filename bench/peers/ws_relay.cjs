// The same relay on node with the package ws; see bun_relay.js.
const { WebSocketServer } = require("ws");
const reencode = process.env.MODE !== "raw";
const peers = new Map();
const sessions = new Map();

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, maxPayload: 1 << 21 }, () => {
  console.log(`listening on ws://127.0.0.1:${server.address().port}/ws`);
});
server.on("connection", (ws) => {
  ws.on("message", (raw, isBinary) => {
    if (isBinary) {
      const session = sessions.get(raw.latin1Slice(1, 17));
      if (session) (session[0] === ws ? session[1] : session[0]).send(raw, { binary: true });
      return;
    }
    const text = raw.toString();
    const message = JSON.parse(text);
    const kind = "type" in message ? message.type : Object.keys(message)[0];
    const payload = "type" in message ? message.payload : message[kind];
    if (kind === "register") {
      peers.set(payload.nodeID, ws);
          ws.send(JSON.stringify({ registerAck: { nodeID: payload.nodeID, registeredAt: 0, ttlSeconds: 300 } }));
      return;
    }
    const target = peers.get(payload.toNodeID);
    if (!target) return ws.send(JSON.stringify({ error: { code: "peer_not_found", message: "" } }));
    if (kind === "relayOpen") sessions.set(Buffer.from(payload.sessionID, "hex").latin1Slice(), [ws, target]);
    target.send(reencode ? JSON.stringify(message) : raw, { binary: false });
  });
});

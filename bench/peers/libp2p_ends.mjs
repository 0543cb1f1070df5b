// js-libp2p over TCP, Noise and yamux; the same calls and the same answers as bench/_ends.py describes.
// It is run from a folder that has libp2p in its node_modules.
import { createLibp2p } from "libp2p";
import { tcp } from "@libp2p/tcp";
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { multiaddr } from "@multiformats/multiaddr";

// libp2p asks for node 22; all that it misses in node 20 is this.
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
};

const PROTOCOL = "/teale-bench/1";
const SMALL = 100, LARGE = 1 << 20;
const ANSWER = Buffer.from(`"${"a".repeat(SMALL - 2)}"`);
const say = (value) => console.log(JSON.stringify(value));

const make = (listen) =>
  createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { maxConnections: 5000, inboundConnectionThreshold: 10000, maxIncomingPendingConnections: 1000 },
    connectionMonitor: { enabled: false },
  });

// Sends bytes with the stream's own back-pressure; both of libp2p's stream interfaces are catered for.
async function push(stream, data) {
  if (!stream.send(data)) await stream.onDrain();
}

async function serve() {
  const node = await make(["/ip4/127.0.0.1/tcp/0"]);
  await node.handle(PROTOCOL, async (incoming) => {
    const stream = incoming.stream ?? incoming;
    let size = 0, held = 0, first = Buffer.alloc(0);
    for await (const piece of stream) {
      held += piece.byteLength;
      if (!size) {
        first = Buffer.concat([first, piece.subarray()]);
        if (first.length < 4) continue;
        size = first.readUInt32BE();
        held -= 4;
      }
      for (; held >= size; held -= size) await push(stream, ANSWER);
    }
    await stream.close();
  }, { maxInboundStreams: 5000 });
  say(node.getMultiaddrs()[0].toString());
}

async function open(node, address, size) {
  const stream = await node.dialProtocol(multiaddr(address), PROTOCOL);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(size);
  await push(stream, head);
  return { stream, pieces: stream[Symbol.asyncIterator](), rest: 0 };
}

async function exchange(opened, size, count, window) {
  const message = size === SMALL ? ANSWER : Buffer.alloc(size, ANSWER);
  let sent = 0, answered = 0;
  const began = performance.now();
  while (answered < count) {
    while (sent < count && sent - answered < window) {
      await push(opened.stream, message);
      sent++;
    }
    const { value, done } = await opened.pieces.next();
    if (done) throw new Error("ended");
    opened.rest += value.byteLength;
    answered += Math.floor(opened.rest / SMALL);
    opened.rest %= SMALL;
  }
  return (performance.now() - began) / 1000;
}

async function client(address, what, count) {
  if (what === "setup") {
    const taken = [];
    for (let i = 0; i < count; i++) {
      const node = await make([]);
      const began = performance.now();
      await exchange(await open(node, address, SMALL), SMALL, 1, 1);
      taken.push(performance.now() - began);
      await node.stop();
    }
    say(taken);
  } else if (what === "hold") {
    for (let i = 0; i < count; i++) await exchange(await open(await make([]), address, SMALL), SMALL, 1, 1);
    say("held");
    await new Promise((resolve) => process.stdin.resume().on("end", resolve));
  } else {
    const [size, window] = { bulk: [LARGE, 8], ping: [SMALL, 1], rate: [SMALL, 64] }[what];
    const node = await make([]);
    await exchange(await open(node, address, SMALL), SMALL, 200, 4);
    const seconds = await exchange(await open(node, address, size), size, count, window);
    if (what === "bulk") say((size * count) / seconds / 1e6);
    else say(what === "ping" ? (seconds / count) * 1e6 : count / seconds);
  }
  process.exit(0);
}

const [call, address, what, count] = process.argv.slice(2);
await (call === "serve" ? serve() : client(address, what, Number(count)));

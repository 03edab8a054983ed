// ws, from npm; NODE_PACKAGES is the folder that has it.
import { once } from "node:events";
import { createRequire } from "node:module";
import { content, runAll, sha256 } from "../node_common.mjs";

const { WebSocket } = createRequire(`${process.env.NODE_PACKAGES}/`)("ws");

await runAll(async (origin, { path, subprotocols, compress, steps }) => {
  const socket = new WebSocket(origin.replace("http", "ws") + path, subprotocols, {
    perMessageDeflate: compress,
  });
  const status = new Promise((resolve, reject) => {
    socket.once("open", () => resolve(101));
    socket.once("unexpected-response", (_, response) => resolve(response.statusCode));
    socket.once("error", reject);
  });
  if ((await status) !== 101) {
    socket.on("error", () => {});
    socket.terminate();
    return { received: [await status], subprotocol: null, extensions: "" };
  }
  // Messages and the end may come before anybody waits for them.
  const messages = [];
  let arrived = () => {};
  socket.on("message", (data, isBinary) => {
    messages.push(isBinary ? { length: data.length, sha256: sha256(data) } : data.toString());
    arrived();
  });
  const closed = once(socket, "close").then(([code, reason]) => [code, reason.toString()]);
  const received = [];
  let end = null;
  for (const step of steps) {
    if ("text" in step) socket.send(step.text);
    if ("binary" in step) socket.send(content(step.binary));
    if ("fragments" in step) {
      step.fragments.forEach((fragment, index) =>
        socket.send(fragment, { fin: index === step.fragments.length - 1 }),
      );
    }
    if ("ping" in step) {
      socket.ping(step.ping);
      const [data] = await once(socket, "pong");
      if (data.toString() !== step.ping) throw new Error(`another pong: ${data}`);
      received.push("pong");
    }
    if ("receive" in step) {
      while (messages.length === 0) await new Promise((resolve) => (arrived = resolve));
      received.push(messages.shift());
    }
    if ("close" in step) socket.close(...step.close);
    if ("closed" in step) end = await closed;
  }
  const { protocol, extensions } = socket;
  socket.close();
  await closed;
  return { received, closed: end, subprotocol: protocol || null, extensions };
});

// Node's own fetch (undici).
import { channel } from "node:diagnostics_channel";
import { content, runAll, sha256 } from "../node_common.mjs";

const SHORT = 4096;

let connects = 0;
channel("undici:client:connected").subscribe(() => (connects += 1));

const HOW = { requests: inTurn, early, poll, stream };

await runAll(async (origin, { how, requests }) => {
  connects = 0;
  const answers = await HOW[how](origin, requests);
  return { answers, connects };
});

async function inTurn(origin, requests) {
  const answers = [];
  for (const request of requests) answers.push(await whole(origin, request));
  return answers;
}

async function early(origin, [request]) {
  const data = content(request.body.size);
  let begun;
  const begin = new Promise((resolve) => (begun = resolve));
  async function* body() {
    yield data.subarray(0, data.length / 2);
    await begin;
    yield data.subarray(data.length / 2);
  }
  const response = await send(origin, request, body());
  const pieces = [];
  for await (const piece of response.body) {
    pieces.push(piece);
    begun();
  }
  return [answer(response, Buffer.concat(pieces))];
}

function poll(origin, requests) {
  return Promise.all(requests.map((request) => whole(origin, request)));
}

async function stream(origin, [request, ...others]) {
  const response = await send(origin, request);
  const answers = [];
  const pieces = [];
  for await (const piece of response.body) {
    pieces.push(piece);
    // One more line for each that was read.
    if (others.length > 0) answers.push(await whole(origin, others.shift()));
  }
  return [answer(response, Buffer.concat(pieces)), ...answers];
}

async function whole(origin, request) {
  const { body } = request;
  const data = body && content(body.size);
  const response = await send(origin, request, body?.chunked ? pieces(data) : data);
  return answer(response, Buffer.from(await response.arrayBuffer()));
}

/** A body whose length nobody is told. */
async function* pieces(data) {
  for (let start = 0; start < data.length; start += 1 << 16) {
    yield data.subarray(start, start + (1 << 16));
  }
}

function send(origin, { method, path, headers }, body = undefined) {
  return fetch(origin + path, { method, headers, body: body ?? undefined, duplex: "half" });
}

function answer(response, body) {
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    length: body.length,
    sha256: sha256(body),
    text: body.length < SHORT ? body.toString() : null,
    trailers: null,
    interim: null,
  };
}

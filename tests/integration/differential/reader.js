// A server on Node's own parser that tells each request as a line of JSON on standard output.
'use strict';
const http = require('node:http');

const tell = (what) => process.stdout.write(JSON.stringify(what) + '\n');

const take = (request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const { method, url, headers, rawTrailers } = request;
    tell({
      line: `${method} ${url} HTTP/${request.httpVersion}`,
      host: headers.host ?? null,
      length: headers['content-length'] ?? null,
      coding: headers['transfer-encoding'] ?? null,
      body: Buffer.concat(parts).toString('base64'),
      trailers: rawTrailers,
    });
    response.end();
  });
  // What is cut short is no request.
  request.on('error', () => {});
};

const server = http.createServer({ maxHeaderSize: 1 << 17 }, take);
// Without this it answers expectations that it does not know with 417, which it may.
server.on('checkExpectation', take);
// No deadline of its own: a loaded machine is slow.
Object.assign(server, { keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0, timeout: 0 });
server.listen(0, '127.0.0.1', () => tell(server.address().port));

// What the programs on Node share: their input, their output, the bytes of bodies.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

/** The bytes of every body of a size. */
export function content(size) {
  const piece = Buffer.from(Array.from({ length: 64 * 1024 }, (_, i) => (i * 31) % 251));
  return Buffer.alloc(size, piece);
}

export function sha256(data) {
  return createHash("sha256").update(data).digest("hex");
}

/** Runs each scenario of the input by `one(origin, scenario)`; what it can't do is its error. */
export async function runAll(one) {
  const input = createInterface({ input: process.stdin });
  const [line] = await new Promise((resolve) => input.once("line", (text) => resolve([text])));
  input.close();
  const { origin, scenarios } = JSON.parse(line);
  for (const scenario of scenarios) {
    const result = await one(origin, scenario).catch((error) => ({
      error: `${error}: ${error.cause ?? ""}`,
    }));
    console.log(JSON.stringify({ name: scenario.name, ...result }));
  }
  // Idle connections would keep it from ending.
  process.exit();
}

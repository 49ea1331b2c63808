// The network, off the page's thread: pixels in, tiles of the result out.
import { tiles } from "./tiles.js";

// What the largest tensor takes, in bytes for each pixel of a tile: 4·64 channels at twice the
// width and height, four bytes each.
const BYTES_A_PIXEL = 4 * 64 * 4 * 4;
const WASM_EDGE = 256;
const LARGEST_EDGE = 400;

let loaded = null;

self.onmessage = async ({ data }) => {
  try {
    await upscale(data);
  } catch (error) {
    self.postMessage({ kind: "error", message: String(error?.message ?? error) });
  }
};

async function upscale({ pixels, width, height, edge, device }) {
  loaded ??= await load(device);
  try {
    await run(loaded, pixels, width, height, edge);
  } catch (error) {
    if (loaded.device !== "WebGPU") throw error;
    // A driver that fails is no reason to give up: the processor can do it as well.
    loaded = await load("wasm");
    await run(loaded, pixels, width, height, edge);
  }
}

/** The runtime and the network, on the GPU if the browser lets us use one. */
async function load(device) {
  const model = await (await fetch("model/model.json")).json();
  const adapter = device === "wasm" ? null : await navigator.gpu?.requestAdapter().catch(() => null);
  const ort = await import(adapter ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;
  // Threads share memory, which browsers allow to isolated pages only.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await download(`model/${model.file}`), {
    executionProviders: [adapter ? "webgpu" : "wasm"],
  });
  const threads = ort.env.wasm.numThreads;
  return {
    ort,
    session,
    model,
    device: adapter ? "WebGPU" : threads > 1 ? `WebAssembly, ${threads} threads` : "WebAssembly",
    edge: adapter ? gpuEdge(adapter.limits.maxStorageBufferBindingSize) : WASM_EDGE,
  };
}

/** The largest tile whose tensors a GPU can bind. */
function gpuEdge(bytes) {
  return Math.max(128, Math.min(LARGEST_EDGE, Math.floor(Math.sqrt(bytes / BYTES_A_PIXEL))));
}

/** A file's bytes, telling how much has come. */
async function download(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The network could not be loaded (HTTP ${response.status}).`);
  const total = Number(response.headers.get("Content-Length")) || 0;
  const parts = [];
  let size = 0;
  for await (const part of chunks(response.body)) {
    parts.push(part);
    size += part.length;
    self.postMessage({ kind: "loading", size, total });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

async function run({ ort, session, model, device, edge: own }, pixels, width, height, edge) {
  const todo = tiles(width, height, Math.max(edge || own, 2 * model.halo + 1), model.halo);
  self.postMessage({ kind: "start", total: todo.length, device });
  const begun = performance.now();
  for (const [index, { x, y }] of todo.entries()) {
    const input = new ort.Tensor("float32", planes(pixels, width, x, y), [1, 3, y.size, x.size]);
    const { output } = await session.run({ input });
    const values = await output.getData();
    const tile = colours(values, x, y, model.scale);
    output.dispose();
    input.dispose();
    self.postMessage(
      {
        kind: "tile",
        tile,
        left: x.from * model.scale,
        top: y.from * model.scale,
        done: index + 1,
        total: todo.length,
        seconds: (performance.now() - begun) / 1000,
      },
      [tile.data.buffer],
    );
  }
  self.postMessage({ kind: "done", device, seconds: (performance.now() - begun) / 1000 });
}

/** RGBA bytes of a window as three planes in [0, 1]. */
function planes(pixels, width, x, y) {
  const area = x.size * y.size;
  const values = new Float32Array(3 * area);
  for (let row = 0, at = 0; row < y.size; row++) {
    let from = 4 * ((y.start + row) * width + x.start);
    for (let column = 0; column < x.size; column++, at++, from += 4) {
      values[at] = pixels[from] / 255;
      values[at + area] = pixels[from + 1] / 255;
      values[at + 2 * area] = pixels[from + 2] / 255;
    }
  }
  return values;
}

/** The core of a window's result as opaque RGBA bytes. */
function colours(values, x, y, scale) {
  const stride = x.size * scale;
  const area = stride * y.size * scale;
  const width = (x.to - x.from) * scale;
  const height = (y.to - y.from) * scale;
  const bytes = new Uint8ClampedArray(4 * width * height); // clamps and rounds
  let at = 0;
  for (let row = 0; row < height; row++) {
    let from = ((y.from - y.start) * scale + row) * stride + (x.from - x.start) * scale;
    for (let column = 0; column < width; column++, at += 4, from++) {
      bytes[at] = values[from] * 255;
      bytes[at + 1] = values[from + area] * 255;
      bytes[at + 2] = values[from + 2 * area] * 255;
      bytes[at + 3] = 255;
    }
  }
  return { data: bytes, width, height };
}

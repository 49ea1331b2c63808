// The page: take an image, show it, let the worker upscale it, compare, download.

const LARGEST_PART = 512; // side of the square that is upscaled at once; more would tire a phone
const LONGEST = 2048; // side of an image that goes whole; browsers limit the sides of a canvas
const STEP = 16; // pixels that an arrow key moves the part by

const model = await (await fetch("model/model.json")).json();
const SCALE = model.scale;

const $ = (name) => document.getElementById(name);
const [stage, view, before, after] = ["stage", "view", "before", "after"].map($);
const [handle, frame, status, bar, fill] = ["handle", "frame", "status", "bar", "fill"].map($);

let worker = null;
let source = null; // { bitmap, name }
let part = null; // the part of it that is upscaled: { left, top, width, height }
let link = null; // address of the result's file
let turn = 0; // counts what was begun, so that what comes late knows that it does

// Options for tests: the edge of a tile, and "wasm" to leave the GPU alone.
const options = new URLSearchParams(location.search);

/* ---- taking an image ---- */

async function take(file) {
  if (!file) return;
  stop();
  const own = ++turn;
  const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" }).catch(() => null);
  if (own !== turn) return;
  if (!bitmap) {
    fail(`${file.name || "That"} is no image that this browser can read; try a JPEG, PNG or WebP.`);
    return;
  }
  source = { bitmap, name: (file.name || "image").replace(/\.[^.]*$/, "") };
  stage.scrollIntoView({ behavior: "smooth", block: "nearest" });
  const { width, height } = source.bitmap;
  if (width * height <= LARGEST_PART ** 2 && Math.max(width, height) <= LONGEST) {
    part = { left: 0, top: 0, width, height };
    start();
    return;
  }
  const size = { width: Math.min(width, LARGEST_PART), height: Math.min(height, LARGEST_PART) };
  part = { left: (width - size.width) >> 1, top: (height - size.height) >> 1, ...size };
  choosePart();
}

/** A large image: show all of it, and a frame on the part that is to be upscaled. */
function choosePart() {
  const { bitmap } = source;
  const shrink = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
  show({ width: bitmap.width, height: bitmap.height, part: true });
  before.width = Math.round(bitmap.width * shrink);
  before.height = Math.round(bitmap.height * shrink);
  before.getContext("2d").drawImage(bitmap, 0, 0, before.width, before.height);
  placeFrame();
  const size = `${bitmap.width} × ${bitmap.height}`;
  say(`${size} pixels are too many for a browser at once. Move the frame to the part you want.`);
}

function placeFrame() {
  const { width, height } = source.bitmap;
  part.left = Math.round(Math.max(0, Math.min(part.left, width - part.width)));
  part.top = Math.round(Math.max(0, Math.min(part.top, height - part.height)));
  frame.style.left = `${(100 * part.left) / width}%`;
  frame.style.top = `${(100 * part.top) / height}%`;
  frame.style.width = `${(100 * part.width) / width}%`;
  frame.style.height = `${(100 * part.height) / height}%`;
}

/* ---- upscaling ---- */

function start() {
  const { bitmap, name } = source;
  const { left, top, width, height } = part;
  show({ width: width * SCALE, height: height * SCALE, busy: true });
  const small = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  small.drawImage(bitmap, -left, -top);
  const opaque = isOpaque(small.getImageData(0, 0, width, height).data);
  view.classList.toggle("clear", !opaque);
  enlarge(small.canvas);
  const opaqueCopy = opaque ? small : fillTransparent(small.canvas);
  const { data } = opaqueCopy.getImageData(0, 0, width, height);
  after.width = width * SCALE;
  after.height = height * SCALE;
  say("Loading the network …");
  progress(0);
  worker ??= new Worker("worker.js", { type: "module" });
  worker.onerror = () => fail("The network could not be started in this browser.");
  worker.onmessage = ({ data: told }) => {
    if (told.kind === "loading") {
      const of = told.total ? ` of ${mega(told.total)}` : "";
      say(`Loading the network: ${mega(told.size)}${of}`);
    } else if (told.kind === "start") {
      say(`Upscaling ${width} × ${height} with ${told.device} …`);
    } else if (told.kind === "tile") {
      const tile = new ImageData(told.tile.data, told.tile.width, told.tile.height);
      after.getContext("2d").putImageData(tile, told.left, told.top);
      progress(told.done / told.total);
      const rest = (told.seconds / told.done) * (told.total - told.done);
      if (told.done < told.total) say(`Upscaling: tile ${told.done} of ${told.total}, ${time(rest)} to go`);
    } else if (told.kind === "done") {
      if (!opaque) keepTransparency(small.canvas);
      finish(name, width, height, told);
    } else {
      fail(told.message);
    }
  };
  const edge = Number(options.get("edge")) || 0;
  worker.postMessage({ pixels: data, width, height, edge, device: options.get("device") });
}

function isOpaque(bytes) {
  for (let at = 3; at < bytes.length; at += 4) if (bytes[at] !== 255) return false;
  return true;
}

/** The small image at the size of the result, as programs enlarge it. */
function enlarge(small) {
  before.width = small.width * SCALE;
  before.height = small.height * SCALE;
  const context = before.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, before.width, before.height);
}

/** An opaque copy: the colours at the edges go on behind them, or the network sees a black rim. */
function fillTransparent(small) {
  const { width, height } = small;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(small, 0, 0);
  context.globalCompositeOperation = "destination-over";
  for (let reach = 1; reach <= 32; reach *= 2) {
    for (const x of [-reach, 0, reach]) {
      for (const y of [-reach, 0, reach]) context.drawImage(context.canvas, x, y);
    }
  }
  return context;
}

/** Give the result the enlarged transparency of the small image. */
function keepTransparency(small) {
  const context = after.getContext("2d");
  context.globalCompositeOperation = "destination-in";
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, after.width, after.height);
  context.globalCompositeOperation = "source-over";
}

async function finish(name, width, height, { device, seconds }) {
  const own = turn;
  const blob = await new Promise((resolve) => after.toBlob(resolve, "image/png"));
  if (own !== turn) return;
  if (!blob) {
    fail("The result is too large for this browser's memory; choose a smaller part.");
    return;
  }
  link = URL.createObjectURL(blob);
  $("download").href = link;
  $("download").download = `${name}_x${SCALE}.png`;
  show({ width: width * SCALE, height: height * SCALE, done: true });
  say(`${width} × ${height} became ${width * SCALE} × ${height * SCALE} in ${time(seconds)}, ${device}.`);
}

/** End what runs; a worker cannot be interrupted, but it can go. */
function stop() {
  worker?.terminate();
  worker = null;
  if (link) URL.revokeObjectURL(link);
  link = null;
}

/* ---- showing ---- */

let shown = { width: 3, height: 2 };

/** What is in the stage: its natural size, and which controls go with it. */
function show({ width, height, busy = false, done = false, part: choosing = false }) {
  shown = { width, height };
  if (!done) zoom(false);
  fit();
  cut(busy || choosing ? 0 : 50);
  after.hidden = choosing;
  handle.hidden = !done;
  frame.hidden = !choosing;
  view.classList.toggle("compare", done);
  for (const name of ["tag-before", "tag-after", "download", "zoom"]) $(name).hidden = !done;
  $("run").hidden = !choosing;
  $("cancel").hidden = !busy;
  bar.hidden = !busy;
  stage.setAttribute("aria-busy", String(busy));
}

/** Size the view: within the stage, or one pixel of the result for each of the screen. */
function fit() {
  const full = stage.classList.contains("full");
  const ratio = full
    ? 1 / devicePixelRatio
    : Math.min(stage.clientWidth / shown.width, stage.clientHeight / shown.height);
  view.style.width = `${shown.width * ratio}px`;
  view.style.height = `${shown.height * ratio}px`;
}

function zoom(full) {
  stage.classList.toggle("full", full);
  $("fit").setAttribute("aria-pressed", String(!full));
  $("full").setAttribute("aria-pressed", String(full));
  fit();
  if (full) {
    stage.scrollLeft = (stage.scrollWidth - stage.clientWidth) / 2;
    stage.scrollTop = (stage.scrollHeight - stage.clientHeight) / 2;
  }
}

/** Where before ends and after begins, in percent of the width. */
function cut(percent) {
  const value = Math.max(0, Math.min(100, percent));
  view.style.setProperty("--cut", `${value}%`);
  handle.setAttribute("aria-valuenow", String(Math.round(value)));
}

function say(text) {
  status.textContent = text;
  status.classList.remove("error");
}

function fail(text) {
  stop();
  progress(0);
  for (const name of ["cancel", "run", "download"]) $(name).hidden = true;
  bar.hidden = true;
  stage.setAttribute("aria-busy", "false");
  status.textContent = text;
  status.classList.add("error");
}

function progress(part) {
  fill.style.width = `${100 * part}%`;
}

const mega = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const time = (seconds) =>
  seconds < 90 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : `${Math.round(seconds / 60)} min`;

/* ---- pointer and keys ---- */

function drag(element, begin, move) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !begin(event)) return;
    element.setPointerCapture(event.pointerId);
    element.onpointermove = move;
    element.onpointerup = element.onpointercancel = () => { element.onpointermove = null; };
  });
}

function cutAt(event) {
  const box = view.getBoundingClientRect();
  cut((100 * (event.clientX - box.left)) / box.width);
}

drag(handle, () => true, cutAt);
drag(view, (event) => {
  const ready = view.classList.contains("compare") && !stage.classList.contains("full");
  if (ready) cutAt(event);
  return ready;
}, cutAt);

const grip = { x: 0, y: 0, left: 0, top: 0 };
drag(frame, (event) => {
  Object.assign(grip, { x: event.clientX, y: event.clientY, left: part.left, top: part.top });
  return true;
}, (event) => {
  const ratio = source.bitmap.width / view.clientWidth;
  part.left = grip.left + (event.clientX - grip.x) * ratio;
  part.top = grip.top + (event.clientY - grip.y) * ratio;
  placeFrame();
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

handle.addEventListener("keydown", (event) => {
  const now = Number(handle.getAttribute("aria-valuenow"));
  if (event.key === "Home") cut(0);
  else if (event.key === "End") cut(100);
  else if (ARROWS[event.key]?.[0]) cut(now + 2 * ARROWS[event.key][0]);
  else return;
  event.preventDefault();
});

frame.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (!arrow) return;
  part.left += STEP * arrow[0];
  part.top += STEP * arrow[1];
  placeFrame();
  event.preventDefault();
});

$("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
$("run").addEventListener("click", start);
$("fit").addEventListener("click", () => zoom(false));
$("full").addEventListener("click", () => zoom(true));
$("cancel").addEventListener("click", () => {
  stop();
  welcome();
});
$("sample").addEventListener("click", async () => {
  const blob = await (await fetch("sample.png")).blob();
  take(new File([blob], "coffee.png", { type: blob.type }));
});

addEventListener("paste", (event) => take(event.clipboardData.files[0]));
let inside = 0;
addEventListener("dragenter", () => { $("drop").hidden = ++inside === 0; });
addEventListener("dragleave", () => { $("drop").hidden = --inside <= 0; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("drop").hidden = true;
  take(event.dataTransfer.files[0]);
});
addEventListener("resize", fit);

/* ---- what is there at first: the sample, and what the library made of it ---- */

async function welcome() {
  const own = ++turn;
  const [small, big] = await Promise.all(["sample.png", "sample_x4.png"].map(picture));
  if (own !== turn) return;
  view.classList.remove("clear");
  enlarge(small);
  after.width = big.width;
  after.height = big.height;
  after.getContext("2d").drawImage(big, 0, 0);
  show({ width: big.width, height: big.height, done: true });
  $("download").hidden = true;
  say(`The sample: ${small.width} × ${small.height} became ${big.width} × ${big.height}. Pull the slider.`);
}

async function picture(address) {
  return createImageBitmap(await (await fetch(address)).blob());
}

$("halo").textContent = model.halo;
$("model").textContent = `${model.model}, SHA-256 ${model.sha256.slice(0, 12)}…`;
$("runtime").textContent = model.runtime;
// A file may have been chosen before this script was ready to hear of it.
const [early] = $("file").files;
if (early) {
  $("file").value = "";
  take(early);
} else {
  welcome();
}

// The before/after viewer. Its state is in custom properties of `element`, which stays
// when other images are put into it: so does the place that is looked at.
const state = { cut: 0.5, zoom: 1, x: 0, y: 0 };
const LARGEST = 32;
const fingers = new Map();

const stage = () => element.querySelector(".stage");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function draw() {
  const box = stage();
  if (!box) return;
  const { width, height } = box.getBoundingClientRect();
  state.x = clamp(state.x, width * (1 - state.zoom), 0);
  state.y = clamp(state.y, height * (1 - state.zoom), 0);
  element.style.setProperty("--cut", state.cut);
  element.style.setProperty("--zoom", state.zoom);
  element.style.setProperty("--x", `${state.x}px`);
  element.style.setProperty("--y", `${state.y}px`);
  box.classList.toggle("zoomed", state.zoom > 1);
  box.querySelector(".divider").value = Math.round(100 * state.cut);
  const level = element.querySelector(".level");
  if (level) level.textContent = `${Math.round(100 * state.zoom)} %`;
}

// Zoom so that the point (x, y) of the stage stays where it is.
function zoomTo(zoom, x, y) {
  const box = stage().getBoundingClientRect();
  x ??= box.width / 2;
  y ??= box.height / 2;
  zoom = clamp(zoom, 1, LARGEST);
  state.x = x - ((x - state.x) * zoom) / state.zoom;
  state.y = y - ((y - state.y) * zoom) / state.zoom;
  state.zoom = zoom;
  draw();
}

// The zoom at which a pixel of the image is a pixel of the screen.
function natural() {
  const image = element.querySelector(".after");
  const box = stage().getBoundingClientRect();
  const shown = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  return 1 / shown / window.devicePixelRatio;
}

function place(event) {
  const box = stage().getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

element.addEventListener("input", (event) => {
  if (!event.target.matches(".divider")) return;
  state.cut = event.target.value / 100;
  draw();
});

element.addEventListener("click", (event) => {
  const act = event.target.closest("button")?.dataset.act;
  if (act === "in") zoomTo(state.zoom * 1.5);
  if (act === "out") zoomTo(state.zoom / 1.5);
  if (act === "fit") zoomTo(1);
  if (act === "natural") zoomTo(natural());
  if (act === "full") {
    if (document.fullscreenElement) document.exitFullscreen();
    else element.querySelector(".viewer").requestFullscreen();
  }
});

element.addEventListener("keydown", (event) => {
  if (!event.target.matches(".stage")) return;
  const step = 40;
  const moves = {
    ArrowLeft: [step, 0],
    ArrowRight: [-step, 0],
    ArrowUp: [0, step],
    ArrowDown: [0, -step],
  };
  if (event.key === "+" || event.key === "=") zoomTo(state.zoom * 1.5);
  else if (event.key === "-") zoomTo(state.zoom / 1.5);
  else if (event.key === "0") zoomTo(1);
  else if (event.key === "1") zoomTo(natural());
  else if (event.key in moves && state.zoom > 1) {
    state.x += moves[event.key][0];
    state.y += moves[event.key][1];
    draw();
  } else return;
  event.preventDefault();
});

element.addEventListener("dblclick", (event) => {
  if (!event.target.closest(".stage") || event.target.matches(".divider")) return;
  zoomTo(state.zoom > 1 ? 1 : Math.max(natural(), 2), ...place(event));
});

element.addEventListener(
  "wheel",
  (event) => {
    // A wheel alone scrolls the page; pinching a touchpad comes with ctrl.
    if (!event.target.closest(".stage") || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoomTo(state.zoom * Math.exp(-event.deltaY / 200), ...place(event));
  },
  { passive: false },
);

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".stage") || event.target.matches(".divider")) return;
  fingers.set(event.pointerId, place(event));
  stage().setPointerCapture(event.pointerId);
});

element.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = place(event);
  if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    zoomTo((state.zoom * apart(now)) / Math.max(apart(before), 1), ...other);
  } else if (state.zoom > 1) {
    state.x += now[0] - before[0];
    state.y += now[1] - before[1];
    draw();
  } else {
    const box = stage().getBoundingClientRect();
    state.cut = clamp(now[0] / box.width, 0, 1);
    draw();
  }
  fingers.set(event.pointerId, now);
});

for (const name of ["pointerup", "pointercancel"])
  element.addEventListener(name, (event) => fingers.delete(event.pointerId));

// Images that were exchanged are shown at the place of those before.
element.addEventListener("load", draw, true);
document.addEventListener("fullscreenchange", draw);
draw();

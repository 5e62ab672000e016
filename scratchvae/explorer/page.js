// The panels of the page, and what happens when one touches them. `state` is all that changes, and `show` draws it.

const J = model.n_latent;
const SMALL = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const LARGE = 150;  // the longer side of an image on the page, in pixels
const MEDIUM = 160;
const FRAMES = 9;  // of the strip from A to B
const SAMPLES = 20;
const AT_ONCE = 20;  // classes in which a z is decoded for one picture of the screen
const GIVEN = model.n_classes ? ", y" : "";  // what the networks of a conditional model are told beside z or x
const NEAR = 8;  // pixels from a point at which one still means the point

const at = id => document.getElementById(id);
const number = value => SMALL.format(value).replace("-", "−");

const state = {
  z: codeOf(0),  // the code that is decoded
  y: classOf(0),  // the class as which it is decoded, or null
  chosen: 0,  // the test image that is shown
  a: 0,
  b: firstOfAnotherClass(),
  drawing: new Float64Array(model.n_visible).fill(model.low),
  drawn: false,  // whether there is anything on it
  pen: { x: WIDTH / 2, y: HEIGHT / 2 },  // where the keyboard's pen is
  draws: Array.from({ length: SAMPLES }, () => normals(J)),
};
// The active latents first, and of these the one that is used most.
const byUse = Array.from({ length: J }, (_, j) => j).sort((i, j) => isActive(j) - isActive(i) || useOf(j) - useOf(i));
const plane = new Plane(at("plane"), byUse.slice(0, 2).sort((i, j) => i - j));
const sliders = [];

/** Return how much a latent is used: its KL, or where that is not known the variance of the test images' codes. */
function useOf(j) {
  return model.kl ? model.kl[j] : model.variance[j];
}

/** Say whether the mean of q(z|x) depends on x in a latent; where that is not known, it may. */
function isActive(j) {
  return model.active ? model.active[j] : true;
}

/** Return the first test image whose class is not that of the first one, or the second where there are no classes. */
function firstOfAnotherClass() {
  const other = model.labels ? model.labels.findIndex(label => label !== model.labels[0]) : 1;
  return other > 0 && other < model.n ? other : Math.min(1, model.n - 1);
}

/** Return "z₁ = 0.50, z₂ = −1.00" for some latents of a code; a line ends at a comma only. */
function inWords(z, latents) {
  return latents.map(j => `${nameOf(j)}\u00a0=\u00a0${number(z[j])}`).join(", ");
}

/** Return what one calls the k-th test image. */
function titleOf(k) {
  return model.labels ? `image ${k} (${model.classes[model.labels[k]]})` : `image ${k}`;
}

/** Give a canvas its size on the page, with `longer` pixels for its longer side. */
function sized(canvas, longer) {
  const scale = longer / Math.max(WIDTH, HEIGHT);
  canvas.style.width = `${Math.round(WIDTH * scale)}px`;
  canvas.style.height = "auto";
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  canvas.style.aspectRatio = `${WIDTH} / ${HEIGHT}`;
}

// The space, with the image at z

/** Draw all again that depends on z, at the next picture of the screen. */
function show() {
  if (state.waiting) return;
  state.waiting = true;
  requestAnimationFrame(() => {
    state.waiting = false;
    const image = decode(state.z, state.y);
    paint(at("image"), image);
    paint(at("mirror"), image);
    const shown = J <= 3 ? [...state.z.keys()] : plane.axes;
    const length = J <= 3 ? "" : `, ‖z‖\u00a0=\u00a0${number(Math.sqrt(squares(state.z)))}`;
    const told = model.n_classes ? `; y\u00a0=\u00a0${model.classes[state.y]}` : "";
    at("here").textContent = inWords(state.z, shown) + length + told;
    at("numpy").value = asNumPy(state.z);
    for (const { input, output, j } of sliders) {
      input.value = state.z[j];
      output.textContent = number(state.z[j]);
    }
    showPlane();
    if (model.n_classes) showClasses(state.z);
  });
}

/** Draw the plane with its marks. */
function showPlane() {
  const marks = [
    { z: codeOf(state.a), k: state.a, text: "A", colour: "#ffffff" },
    { z: codeOf(state.b), k: state.b, text: "B", colour: "#ffffff" },
    { z: codeOf(state.chosen), k: state.chosen, colour: "#ffffff", spread: state.spread },
  ];
  if (state.drawn) marks.push({ z: state.codeOfDrawing, k: 0, text: "yours", colour: "#ffffff" });
  marks.push({ z: state.z, k: 0, text: "z", colour: "#7cb7ff", below: true });
  plane.draw(marks);
}

function moveTo(z) {
  state.z = Float64Array.from(z);
  show();
}

/** Let z be the code of the k-th test image, and y its class. */
function moveToImage(k) {
  takeClass(classOf(k));
  moveTo(codeOf(k));
}

function placeOf(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function setUpPlane() {
  const canvas = plane.canvas;
  const follows = J === plane.axes.length;  // the plane shows all of z, which then follows the mouse without a press
  at("moving").textContent = follows
    ? `Move over the ${J === 1 ? "line" : "plane"} to see the image at each place.`
    : "Drag over the plane to change two latents of z, and see the image there.";
  canvas.setAttribute("aria-label", J === 1 ? "the line of the latent" : "the plane of two latents");
  canvas.addEventListener("pointermove", event => {
    const hovers = follows && event.pointerType === "mouse";
    if (hovers || event.buttons) moveTo(plane.codeAt(placeOf(event, canvas), state.z));
  });
  canvas.addEventListener("pointerdown", event => {
    const place = placeOf(event, canvas);
    const k = plane.withPoints ? plane.nearest(place, NEAR) : -1;
    if (k >= 0) choose(k, true);
    else moveTo(plane.codeAt(place, state.z));
  });
  canvas.addEventListener("keydown", event => {
    const step = plane.limit / 100 * (event.shiftKey ? 10 : 1);
    const [right, up] = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step],
    }[event.key] ?? [0, 0];
    if (event.key === "Enter") choose(plane.nearest(plane.place(state.z), Infinity), true);
    else if (right || up) {
      const z = Float64Array.from(state.z);
      z[plane.axes[0]] += right;
      if (plane.axes.length > 1) z[plane.axes[1]] += up;
      moveTo(z);
    } else return;
    event.preventDefault();
  });
  new ResizeObserver(() => {
    plane.resize();
    showPlane();
  }).observe(canvas);
  at("with-points").addEventListener("change", event => {
    plane.withPoints = event.target.checked;
    showPlane();
  });
  at("with-tiles").addEventListener("change", event => {
    plane.withTiles = event.target.checked;
    showPlane();
  });
  plane.withTiles = J === 2;
  if (J === 2) plane.decodeTiles(state.y, showPlane);
}

// The class of a conditional model

/** Draw a code in each class from the k-th on, some of them at a time so that the page stays awake, until z moves. */
function showClasses(z, k = 0) {
  if (z !== state.z) return;
  const canvases = [...at("in-classes").querySelectorAll("canvas")].slice(k, k + AT_ONCE);
  canvases.forEach((canvas, i) => paint(canvas, decode(z, k + i)));
  if (k + AT_ONCE < model.n_classes) requestAnimationFrame(() => showClasses(z, k + AT_ONCE));
}

/** Let y be the class of all that is decoded from now on, and of the drawing. */
function takeClass(y) {
  if (y === state.y) return;
  state.y = y;
  markClass();
  if (J === 2) plane.decodeTiles(y, showPlane);
  showStrip();
  if (model.encoder) showDrawing();
  showSamples();
  show();
}

/** Let the pictures and the lists say which class is chosen. */
function markClass() {
  document.querySelector(`input[name=class][value="${state.y}"]`).checked = true;
  for (const list of document.querySelectorAll(".given select")) list.value = state.y;
}

function setUpClasses() {
  if (!model.n_classes) return;
  for (const one of document.querySelectorAll("#classes, .given")) one.hidden = false;
  model.classes.forEach((name, label) => {
    const choice = document.createElement("label");
    const canvas = document.createElement("canvas");
    canvas.style.aspectRatio = `${WIDTH} / ${HEIGHT}`;
    canvas.setAttribute("aria-hidden", "true");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "class", value: label });
    radio.addEventListener("change", () => takeClass(label));
    const words = document.createElement("span");
    words.textContent = name;
    choice.title = name;  // a long one has no room
    choice.append(canvas, radio, words);
    at("in-classes").append(choice);
  });
  for (const list of document.querySelectorAll(".given select")) {
    model.classes.forEach((name, label) => list.append(new Option(name, label)));
    list.addEventListener("change", () => takeClass(Number(list.value)));
  }
  markClass();
}

function setUpAxes() {
  at("axes-choice").hidden = J < 3;
  at("tiles-choice").hidden = J !== 2;
  at("layers").hidden = J === 1;
  canvasClass(J === 1);
  for (const side of J < 3 ? [] : [0, 1]) {
    const select = at(`axis-${side}`);
    for (const j of byUse) select.append(new Option(nameOf(j), j));
    select.value = plane.axes[side];
    select.addEventListener("change", () => {
      plane.axes[side] = Number(select.value);
      plane.resize();
      show();
    });
  }
}

/** Let the plane be flat where it is a line. */
function canvasClass(isLine) {
  plane.canvas.classList.toggle("line", isLine);
  plane.resize();
}

function setUpLegend() {
  if (!model.labels) return;
  model.classes.forEach((name, label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const swatch = document.createElement("canvas");
    swatch.width = swatch.height = 28;
    swatch.getContext("2d").fillStyle = CLASS_COLOURS[label % CLASS_COLOURS.length];
    drawShape(swatch.getContext("2d"), SHAPES[label % SHAPES.length], { x: 14, y: 14 }, 9);
    button.append(swatch, name);
    button.addEventListener("click", () => {
      plane.lit = plane.lit === label ? null : label;
      [...at("legend").children].forEach((one, k) => one.setAttribute("aria-pressed", String(k === plane.lit)));
      showPlane();
    });
    at("legend").append(button);
  });
}

function setUpCopy() {
  at("origin").addEventListener("click", () => moveTo(new Float64Array(J)));
  at("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(at("numpy").value);
      const told = model.n_classes ? `, [${state.y}]` : "";
      at("copied").textContent = `It is in the clipboard; model.decode(z[None]${told}) gives the image.`;
    } catch {  // without a permission, or where a page from a disk has no clipboard
      at("numpy").focus();
      at("numpy").select();
      at("copied").textContent = "This browser keeps its clipboard to itself: the text is selected for Ctrl-C.";
    }
  });
}

function setUpSliders() {
  at("sliders-panel").hidden = J === 2;
  if (J === 2) return;
  const inactive = byUse.filter(j => !isActive(j));
  for (const j of byUse) {
    const label = document.createElement("label");
    label.className = "latent";
    const name = document.createElement("span");
    name.append(nameOf(j));
    if (model.kl) {
      const carries = document.createElement("span");
      carries.className = "soft";
      carries.textContent = ` ${number(model.kl[j])} nats`;
      name.append(carries);
    }
    const output = document.createElement("output");
    const input = document.createElement("input");
    const limit = limitOf(j);
    Object.assign(input, { id: `latent-${j}`, type: "range", min: -limit, max: limit, step: limit / 100 });
    label.htmlFor = input.id;  // else it would name the output, which stands before the input
    input.addEventListener("input", () => {
      const z = Float64Array.from(state.z);
      z[j] = Number(input.value);
      moveTo(z);
    });
    label.append(name, output, input);
    at(isActive(j) ? "sliders" : "inactive").append(label);
    sliders.push({ input, output, j });
  }
  at("about-sliders").textContent = model.kl
    ? `Beside each latent stands its KL(q(z|x${GIVEN}) ‖ p(z)), the nats that it carries on average: the largest comes `
      + "first."
    : "The latent whose codes vary most among the test images comes first.";
  at("inactive-panel").hidden = inactive.length === 0;
  at("inactive-title").textContent = `${inactive.length} inactive ${inactive.length === 1 ? "latent" : "latents"}: `
    + `the mean of q(z|x${GIVEN}) hardly depends on x, and the decoder has learned to look past them`;
}

// One test image

/** Show the k-th test image, and with `move` go to its code and class. */
function choose(k, move = false) {
  if (k < 0) return;
  state.chosen = k;
  const x = imageOf(k);
  state.spread = model.encoder && model.has_prior ? spread(x, classOf(k)) : null;
  at("chosen").value = k;
  at("chosen-label").textContent = model.labels ? `class: ${model.classes[model.labels[k]]}` : "";
  paint(at("chosen-image"), x);
  at("chosen-image").setAttribute("aria-label", `test ${titleOf(k)}`);
  paint(at("chosen-reconstruction"), decode(codeOf(k), classOf(k)));
  const [rateOfIt, distortion] = model.terms.subarray(2 * k, 2 * k + 2);
  const rows = [["distortion", distortion, `− E log p(x|z${GIVEN})`]];
  if (model.has_prior) {
    rows.unshift(["rate", rateOfIt, `KL(q(z|x${GIVEN}) ‖ p(z))`]);
    rows.push(["bound", -rateOfIt - distortion, "− rate − distortion"]);
  }
  at("terms").replaceChildren(...rows.map(([name, value, said]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    for (const text of [Number.isFinite(value) ? `${number(value)} nats` : "not finite", said]) {
      row.insertCell().textContent = text;
    }
    row.cells[1].className = "number";
    return row;
  }));
  if (move) moveToImage(k);
  else showPlane();
}

function setUpChosen() {
  sized(at("chosen-image"), MEDIUM);
  sized(at("chosen-reconstruction"), MEDIUM);
  at("chosen").max = model.n - 1;
  at("chosen").addEventListener("input", event => {
    const k = Number(event.target.value);
    if (event.target.value !== "" && Number.isInteger(k) && k >= 0 && k < model.n) choose(k);
  });
  at("chosen").addEventListener("change", event => { event.target.value = state.chosen; });
  at("as-seen").textContent = model.binary ? "x, as the model sees it" : "x";
  at("about-terms").textContent = model.said.terms;
  at("to-code").addEventListener("click", () => moveToImage(state.chosen));
  for (const letter of ["a", "b"]) {
    at(`take-${letter}`).addEventListener("click", () => {
      state[letter] = state.chosen;
      showStrip();
      showPlane();
    });
  }
}

// From one image to another

/** Return the code at t on the way from A to B that is chosen. */
function between(t) {
  const way = document.querySelector("input[name=path]:checked").value === "circle" ? greatCircle : straight;
  return way(codeOf(state.a), codeOf(state.b), t);
}

/** Draw the strip from A to B, and the image at t. */
function showStrip() {
  [...at("strip").children].forEach((canvas, k) => paint(canvas, decode(between(k / (FRAMES - 1)), state.y)));
  showBetween();
}

function showBetween() {
  const t = Number(at("t").value);
  const z = between(t);
  paint(at("between"), decode(z, state.y));
  at("between-said").textContent = `A is ${titleOf(state.a)}, and B is ${titleOf(state.b)}. `
    + `At t = ${number(t)}, ‖z‖ = ${number(Math.sqrt(squares(z)))}.`;
}

function setUpBetween() {
  const strip = at("strip");
  for (let k = 0; k < FRAMES; k++) {
    const canvas = document.createElement("canvas");
    canvas.style.aspectRatio = `${WIDTH} / ${HEIGHT}`;
    canvas.style.maxWidth = "140px";
    canvas.setAttribute("aria-hidden", "true");  // the slider below says and does the same
    strip.append(canvas);
  }
  sized(at("between"), MEDIUM);
  const follow = event => {
    if (event.type === "pointermove" && !event.buttons) return;
    const first = strip.firstChild.getBoundingClientRect();
    const last = strip.lastChild.getBoundingClientRect();
    const t = (event.clientX - first.left) / (last.right - first.left);
    at("t").value = Math.min(Math.max(t, 0), 1);
    showBetween();
  };
  strip.addEventListener("pointerdown", follow);
  strip.addEventListener("pointermove", follow);
  at("t").addEventListener("input", showBetween);
  at("paths").hidden = J === 1;
  for (const radio of document.querySelectorAll("input[name=path]")) radio.addEventListener("change", showStrip);
  at("between-here").addEventListener("click", () => moveTo(between(Number(at("t").value))));
}

// A drawing

/** Return the drawing as the model sees it: with pixels of black and white alone, if it has seen no others. */
function seen() {
  const half = (model.low + model.high) / 2;
  return model.binary ? state.drawing.map(v => v >= half ? model.high : model.low) : state.drawing;
}

/** Show the drawing, and what the model makes of it. */
function showDrawing(withPen = false) {
  const x = seen();
  const canvas = at("drawing");
  paint(canvas, x);
  if (withPen) {
    canvas.getContext("2d").fillStyle = "#7cb7ff";
    canvas.getContext("2d").fillRect(Math.floor(state.pen.x), Math.floor(state.pen.y), 1, 1);
  }
  const z = encode(x, state.y);
  state.codeOfDrawing = z;
  paint(at("drawing-back"), decode(z, state.y));
  const nats = model.has_prior ? rate(x, state.y) : null;
  const shown = J <= 3 ? [...z.keys()] : byUse.slice(0, 3);
  at("drawing-said").textContent = inWords(z, shown) + (J > 3 ? ", …" : "")
    + (nats === null ? "" : `; its rate is ${number(nats)} nats`);
  showPlane();
}

function setUpDrawing() {
  at("draw-panel").hidden = !model.encoder;
  if (!model.encoder) return;
  const canvas = at("drawing");
  sized(canvas, MEDIUM);
  sized(at("drawing-back"), MEDIUM);
  at("about-ink").textContent = model.binary ? "It has seen pixels of 0 and 1 alone, so each of yours is one." : "";
  at("pen").value = Math.max(0.5, Math.min(WIDTH, HEIGHT) / 20);
  const ink = () => model.low + (model.high - model.low) * Number(at("ink").value);
  const line = (from, to) => {
    stroke(state.drawing, from, to, Number(at("pen").value), ink());
    state.drawn = true;
  };
  const pixel = event => {
    const { x, y } = placeOf(event, canvas);
    return { x: x / canvas.clientWidth * WIDTH, y: y / canvas.clientHeight * HEIGHT };
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    state.pen = pixel(event);
    line(state.pen, state.pen);
    showDrawing();
  });
  canvas.addEventListener("pointermove", event => {
    if (!event.buttons) return;
    const next = pixel(event);
    line(state.pen, next);
    state.pen = next;
    showDrawing();
  });
  canvas.addEventListener("keydown", event => {
    const [right, down] = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key] ?? [0, 0];
    if (!right && !down && event.key !== " ") return;
    event.preventDefault();
    const next = {
      x: Math.min(Math.max(Math.floor(state.pen.x) + 0.5 + right, 0.5), WIDTH - 0.5),
      y: Math.min(Math.max(Math.floor(state.pen.y) + 0.5 + down, 0.5), HEIGHT - 0.5),
    };
    if (event.shiftKey || event.key === " ") line(event.key === " " ? next : state.pen, next);
    state.pen = next;
    showDrawing(true);
  });
  canvas.addEventListener("blur", () => showDrawing());
  at("clear").addEventListener("click", () => {
    state.drawing.fill(model.low);
    state.drawn = false;
    showDrawing();
  });
  at("from-chosen").addEventListener("click", () => {
    state.drawing = imageOf(state.chosen);
    state.drawn = true;
    takeClass(classOf(state.chosen));
    showDrawing();
  });
  at("drawing-here").addEventListener("click", () => moveTo(state.codeOfDrawing));
  showDrawing();
}

// Draws of the prior

/** Return the k-th draw at the temperature that is set, t ε: one draw of noise keeps its place as t changes. */
function sampleOf(k) {
  const t = Number(at("temperature").value);
  return state.draws[k].map(eps => t * eps);
}

function showSamples() {
  [...at("samples").children].forEach((button, k) => paint(button.firstChild, decode(sampleOf(k), state.y)));
  at("temperature-said").textContent = `t = ${number(Number(at("temperature").value))}`;
}

function setUpSamples() {
  at("prior-panel").hidden = !model.has_prior;
  if (!model.has_prior) return;
  for (let k = 0; k < SAMPLES; k++) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `sample ${k + 1}`);
    const canvas = document.createElement("canvas");
    canvas.style.aspectRatio = `${WIDTH} / ${HEIGHT}`;
    button.append(canvas);
    button.addEventListener("click", () => moveTo(sampleOf(k)));
    at("samples").append(button);
  }
  at("temperature").addEventListener("input", showSamples);
  at("sample").addEventListener("click", () => {
    state.draws = state.draws.map(() => normals(J));
    showSamples();
  });
  showSamples();
}

// All of it

sized(at("image"), LARGE);
sized(at("mirror"), MEDIUM);
at("about-prior").hidden = !model.has_prior;
for (const sentence of model.notes) {
  const item = document.createElement("li");
  item.textContent = sentence;
  at("notes").append(item);
}
setUpAxes();
setUpLegend();
setUpClasses();
setUpSliders();
setUpCopy();
setUpChosen();
setUpBetween();
setUpDrawing();
setUpSamples();
choose(0);
showStrip();
show();
setUpPlane();

/**
 * For the console and for tests: explorer.decode([0.5, -1]) is E[x|z], explorer.encode(explorer.image(3)) is the code
 * of test image 3, as explorer.code(3) says it, and so on. Images and codes are arrays of D and of J numbers. A
 * conditional model takes the class as well, explorer.decode([0.5, -1], 7); that of a test image is explorer.label(3).
 */
window.explorer = {
  decode, encode, rate, spread, straight, greatCircle, normals, asNumPy, stroke, model, state,
  image: imageOf, code: codeOf, label: classOf, plane,
};

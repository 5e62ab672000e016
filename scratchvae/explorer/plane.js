// The plane of two latents, with the codes of the test images as points. With one latent it is a line, and the points
// lie above each other by their class.

const NIGHT = "#12171e";  // the ground; the colours of page.css stand out from it by 3 : 1 or more
// Ten colours that stay apart for all kinds of colour vision (tests/test_explorer.py measures it), and four shapes.
const CLASS_COLOURS = [
  "#74ffe8", "#ffa25d", "#2e5dff", "#ffe82e", "#d12e00", "#b9b9ff", "#46b98b", "#8b5da2", "#b9ffb9", "#b94646",
];
const SHAPES = ["circle", "square", "triangle", "diamond"];
const DOT = 2.6;  // half the width of a point, in pixels
const TILES = 17;  // decoded images in a row of the map

class Plane {
  /** `canvas` is where it is drawn, `axes` lists the two latents that it shows, or the one that there is. */
  constructor(canvas, axes) {
    this.canvas = canvas;
    this.axes = axes;
    this.lit = null;  // the class that is shown alone, or null for all
    this.tiles = null;  // a canvas of decoded images, or null
    this.decoding = 0;  // how often the decoding of the tiles has begun
    this.withTiles = false;
    this.withPoints = true;
    this.resize();
  }

  /** Fit the canvas to its place on the page, and the scale to the codes. */
  resize() {
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    const density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * density);
    this.canvas.height = Math.round(this.height * density);
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(density, 0, 0, density, 0, 0);
    this.limit = Math.max(...this.axes.map(limitOf));
  }

  /** Return where a code lies on the canvas, in pixels; the first axis points to the right and the second upwards. */
  place(z, k = 0) {
    const x = (z[this.axes[0]] / this.limit + 1) / 2 * this.width;
    const v = this.axes.length > 1 ? z[this.axes[1]] / this.limit : lane(k);
    return { x, y: (1 - v) / 2 * this.height };
  }

  /** Return the code at a place on the canvas, with the latents that are no axes as in `z`. */
  codeAt({ x, y }, z) {
    const code = Float64Array.from(z);
    code[this.axes[0]] = (2 * x / this.width - 1) * this.limit;
    if (this.axes.length > 1) code[this.axes[1]] = (1 - 2 * y / this.height) * this.limit;
    return code;
  }

  /** Return the test image whose point is nearest to a place, or -1 if none is within so many pixels of it. */
  nearest({ x, y }, within) {
    let best = -1;
    let least = within;
    for (let k = 0; k < model.n; k++) {
      if (this.lit !== null && model.labels[k] !== this.lit) continue;
      const point = this.place(codeOf(k), k);
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance <= least) {
        least = distance;
        best = k;
      }
    }
    return best;
  }

  /** Draw all of it: the decoded images, the rings of the prior, the points, and marks, as drawMark has them. */
  draw(marks) {
    const pen = this.context;
    pen.fillStyle = NIGHT;
    pen.fillRect(0, 0, this.width, this.height);
    if (this.withTiles && this.tiles) {
      pen.imageSmoothingEnabled = false;
      pen.globalAlpha = this.withPoints ? 0.45 : 1;
      pen.drawImage(this.tiles, 0, 0, this.width, this.height);
      pen.globalAlpha = 1;
    }
    this.drawRings(pen);
    if (this.withPoints) {
      for (let k = 0; k < model.n; k++) {
        const label = model.labels ? model.labels[k] : 0;
        pen.globalAlpha = this.lit === null || label === this.lit ? 0.9 : 0.12;
        pen.fillStyle = CLASS_COLOURS[label % CLASS_COLOURS.length];
        drawShape(pen, SHAPES[label % SHAPES.length], this.place(codeOf(k), k), DOT);
      }
      pen.globalAlpha = 1;
    }
    for (const mark of marks) this.drawMark(pen, mark);
  }

  /** Draw the axes through 0, and the rings at 1, 2 and 3 standard deviations of the prior N(0, I), if there is one. */
  drawRings(pen) {
    const middle = { x: this.width / 2, y: this.height / 2 };
    pen.strokeStyle = "rgb(228 232 236 / 22%)";
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, middle.y);
    pen.lineTo(this.width, middle.y);
    pen.moveTo(middle.x, 0);
    pen.lineTo(middle.x, this.height);
    pen.stroke();
    pen.fillStyle = "rgb(228 232 236 / 75%)";
    pen.font = "12px system-ui, sans-serif";
    if (model.has_prior) {
      for (const radius of [1, 2, 3]) {
        const r = radius / this.limit * this.width / 2;
        pen.beginPath();
        if (this.axes.length > 1) pen.arc(middle.x, middle.y, r, 0, 2 * Math.PI);
        for (const side of this.axes.length > 1 ? [] : [-r, r]) {
          pen.moveTo(middle.x + side, 0);
          pen.lineTo(middle.x + side, this.height);
        }
        pen.stroke();
        pen.fillText(`${radius}`, middle.x + r + 3, middle.y - 4);
      }
    }
    pen.textAlign = "right";
    pen.fillText(nameOf(this.axes[0]), this.width - 6, middle.y + 16);
    pen.textAlign = "left";
    if (this.axes.length > 1) pen.fillText(nameOf(this.axes[1]), middle.x + 6, 15);
  }

  /** Draw a ring around a code, a word above or below it, and bars of one standard deviation of q(z|x) to each side. */
  drawMark(pen, { z, k, text, colour, spread, below }) {
    const at = this.place(z, k);
    pen.beginPath();
    pen.arc(at.x, at.y, 6, 0, 2 * Math.PI);
    if (spread) {
      const wide = spread[this.axes[0]] / this.limit * this.width / 2;
      pen.moveTo(at.x - wide, at.y);
      pen.lineTo(at.x + wide, at.y);
      if (this.axes.length > 1) {
        const tall = spread[this.axes[1]] / this.limit * this.height / 2;
        pen.moveTo(at.x, at.y - tall);
        pen.lineTo(at.x, at.y + tall);
      }
    }
    for (const [width, style] of [[6, NIGHT], [2.5, colour]]) {  // a dark rim keeps it apart from the points
      pen.lineWidth = width;
      pen.strokeStyle = style;
      pen.stroke();
    }
    if (!text) return;
    pen.font = "bold 13px system-ui, sans-serif";
    pen.lineWidth = 4;
    pen.strokeStyle = NIGHT;
    const left = Math.min(at.x + 9, this.width - pen.measureText(text).width - 4);
    const base = at.y + (below ? 18 : -8);
    pen.strokeText(text, left, base);
    pen.fillStyle = colour;
    pen.fillText(text, left, base);
  }

  /**
   * Decode a grid of codes over the plane, of the class y, a row of it at a time so that the page stays awake, and call
   * `then` after each. Rows of another class stay until theirs are there; what is still being decoded for it is not.
   */
  decodeTiles(y, then) {
    const tiles = this.tiles ?? document.createElement("canvas");
    if (!this.tiles) {
      tiles.width = TILES * WIDTH;
      tiles.height = TILES * HEIGHT;
    }
    const one = document.createElement("canvas");
    const mine = ++this.decoding;
    const row = r => {
      if (mine !== this.decoding) return;
      for (let c = 0; c < TILES; c++) {
        const middle = { x: (c + 0.5) / TILES * this.width, y: (r + 0.5) / TILES * this.height };
        paint(one, decode(this.codeAt(middle, new Float64Array(model.n_latent)), y));
        tiles.getContext("2d").drawImage(one, c * WIDTH, r * HEIGHT);
      }
      this.tiles = tiles;
      then();
      if (r + 1 < TILES) requestAnimationFrame(() => row(r + 1));
    };
    row(0);
  }
}

/** Return how far the scale of a latent goes to each side of 0: beyond all codes, and 3 deviations of the prior. */
function limitOf(j) {
  let largest = model.has_prior ? 3.2 : 0;
  for (let k = 0; k < model.n; k++) largest = Math.max(largest, 1.05 * Math.abs(model.codes[k * model.n_latent + j]));
  return largest || 1;
}

/** Return the height, from -1 to 1, at which the k-th image lies above a line: in the lane of its class. */
function lane(k) {
  const lanes = model.labels ? model.classes.length : 1;
  const label = model.labels ? model.labels[k] : 0;
  const within = k * 0.618 % 1;  // spread evenly
  return 1 - 2 * (label + 0.1 + 0.8 * within) / lanes;
}

/** Draw a point of one of the four shapes, filled. */
function drawShape(pen, shape, { x, y }, r) {
  pen.beginPath();
  if (shape === "circle") pen.arc(x, y, r, 0, 2 * Math.PI);
  if (shape === "square") pen.rect(x - r, y - r, 2 * r, 2 * r);
  if (shape === "triangle") polygon(pen, [[x, y - 1.3 * r], [x + 1.3 * r, y + r], [x - 1.3 * r, y + r]]);
  if (shape === "diamond") polygon(pen, [[x, y - 1.4 * r], [x + 1.4 * r, y], [x, y + 1.4 * r], [x - 1.4 * r, y]]);
  pen.fill();
}

/** Add a closed line through some corners to the path of a pen. */
function polygon(pen, corners) {
  pen.moveTo(...corners[0]);
  for (const corner of corners.slice(1)) pen.lineTo(...corner);
  pen.closePath();
}

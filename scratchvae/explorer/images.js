// Rows of pixels on a canvas, and a pen. A row is D numbers in the order (height, width), or (height, width, 3) with
// the red, green and blue of a pixel side by side. `low` is drawn in black and `high` in white.

const [HEIGHT, WIDTH, COLOURS = 1] = model.shape;

/** Draw a row of pixels on a canvas, which takes the size of the image. Numbers beyond black and white are these. */
function paint(canvas, row) {
  const { low, high } = model;
  const picture = new ImageData(WIDTH, HEIGHT);
  for (let k = 0; k < WIDTH * HEIGHT; k++) {
    for (let c = 0; c < 3; c++) {
      const value = row[k * COLOURS + (COLOURS === 1 ? 0 : c)];
      picture.data[4 * k + c] = Math.round(255 * (value - low) / (high - low));  // the array itself keeps to 0 … 255
    }
    picture.data[4 * k + 3] = 255;
  }
  if (canvas.width !== WIDTH || canvas.height !== HEIGHT) {
    canvas.width = WIDTH;
    canvas.height = HEIGHT;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Return the k-th test image as the model sees it: its bytes stand for the numbers from low to high. */
function imageOf(k) {
  const bytes = model.images.subarray(k * model.n_visible, (k + 1) * model.n_visible);
  return Float64Array.from(bytes, byte => model.low + (model.high - model.low) * byte / 255);
}

/**
 * Draw a stroke of a pen on a row of pixels, from one place to another, {x, y} in pixels.
 *
 * A pixel whose centre is at the distance d from the line takes the share max(0, min(1, radius + ½ - d)) of the ink.
 */
function stroke(row, from, to, radius, ink) {
  const along = { x: to.x - from.x, y: to.y - from.y };
  const length2 = along.x ** 2 + along.y ** 2;
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const place = { x: x + 0.5 - from.x, y: y + 0.5 - from.y };
      const t = length2 ? Math.min(Math.max((place.x * along.x + place.y * along.y) / length2, 0), 1) : 0;
      const distance = Math.hypot(place.x - t * along.x, place.y - t * along.y);
      const share = Math.min(Math.max(radius + 0.5 - distance, 0), 1);
      for (let c = 0; c < COLOURS; c++) {
        const k = (y * WIDTH + x) * COLOURS + c;
        const wet = row[k] + share * (ink - row[k]);
        const further = Math.abs(wet - ink) < Math.abs(row[k] - ink);  // a second stroke takes nothing away
        if (further) row[k] = wet;
      }
    }
  }
}

// Layers, each of which has y = f(x), as in scratchvae/nets/layers.py and scratchvae/nets/conv.py. There, arrays hold
// one datapoint per row; here x is one datapoint, a Float64Array. The weights of all layers lie one after another in
// one array, `weights`, and a layer says where its own begin.

/** Return the bytes that a text in base64 stands for. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
}

/** Return the numbers of float16 in some bytes, the lower first: a sign, 5 bits of exponent e, 10 of a fraction f. */
function halves(bytes) {
  const numbers = new Float32Array(bytes.length / 2);
  for (let k = 0; k < numbers.length; k++) {
    const bits = bytes[2 * k] | bytes[2 * k + 1] << 8;
    const sign = bits >> 15 ? -1 : 1;
    const e = bits >> 10 & 31;
    const f = bits & 1023;
    // e = 31 stands for infinity and NaN, which no page has.
    numbers[k] = sign * (e === 0 ? f * 2 ** -24 : (1 + f / 1024) * 2 ** (e - 15));
  }
  return numbers;
}

/**
 * y = x W + b, where W (n_in, n_out) lies row by row: y_o = b_o + Σ_i x_i W_io.
 *
 * A further input, such as a class as one 1 among zeros, is n numbers behind those of x and n rows below those of W.
 */
function linear({ n_in, n_out, W, b }, x, weights) {
  if (x.length !== n_in) throw new RangeError(`${x.length} numbers came; expected ${n_in}`);
  const y = Float64Array.from(weights.subarray(b, b + n_out));
  for (let i = 0; i < n_in; i++) {
    if (x[i] === 0) continue;  // most pixels of a drawing
    const row = W + i * n_out;
    for (let o = 0; o < n_out; o++) y[o] += x[i] * weights[row + o];
  }
  return y;
}

/**
 * Call visit(pixel, position, entry) for every entry of every patch: `pixel` is where it lies in the image (H, W, C),
 * `position` which patch of the H' W' it belongs to, and `entry` its place in the patch (K, K, C), which is a row of W.
 * Entries that lie beside the image, in its padding, are zero, and are passed over.
 */
function eachEntry({ shape: [H, W, C], positions: [h, w], size, stride, padding }, visit) {
  for (let r = 0; r < h; r++) {
    for (let c = 0; c < w; c++) {
      for (let i = 0; i < size; i++) {
        const y = r * stride + i - padding;
        if (y < 0 || y >= H) continue;
        for (let j = 0; j < size; j++) {
          const x = c * stride + j - padding;
          if (x < 0 || x >= W) continue;
          for (let k = 0; k < C; k++) visit((y * W + x) * C + k, r * w + c, (i * size + j) * C + k);
        }
      }
    }
  }
}

/** A convolution, y = patches(x) W + b, from x (H W C) to y (H' W' C'). */
function convolution(layer, x, weights) {
  const { positions: [h, w], channels, W, b } = layer;
  const y = new Float64Array(h * w * channels);
  for (let k = 0; k < y.length; k++) y[k] = weights[b + k % channels];
  eachEntry(layer, (pixel, position, entry) => {
    for (let o = 0; o < channels; o++) y[position * channels + o] += x[pixel] * weights[W + entry * channels + o];
  });
  return y;
}

/** A transposed convolution, y = patchesᵀ(x Wᵀ) + b, from x (H' W' C') to y (H W C): each entry goes to its pixel. */
function transposedConvolution(layer, x, weights) {
  const { shape: [H, Wide, C], channels, W, b } = layer;
  const y = new Float64Array(H * Wide * C);
  for (let k = 0; k < y.length; k++) y[k] = weights[b + k % C];
  eachEntry(layer, (pixel, position, entry) => {
    for (let o = 0; o < channels; o++) y[pixel] += x[position * channels + o] * weights[W + entry * channels + o];
  });
  return y;
}

/** 1 / (1 + e⁻ˣ), as e^min(x, 0) / (1 + e^-|x|): no exponent is positive, so nothing overflows at any x. */
function sigmoid(x) {
  return Math.exp(Math.min(x, 0)) / (1 + Math.exp(-Math.abs(x)));
}

const LAYERS = {
  "linear": linear,
  "convolution": convolution,
  "transposed convolution": transposedConvolution,
  "tanh": (_, x) => x.map(Math.tanh),
  "relu": (_, x) => x.map(v => Math.max(v, 0)),
  "softplus": (_, x) => x.map(v => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)))),  // log(1 + eˣ)
  "sigmoid": (_, x) => x.map(sigmoid),
};

/**
 * f_n ∘ … ∘ f_1: layers one after another. Without layers it is the identity.
 *
 * Where one of them says "join", the last n numbers of x pass the layers before it by, and come in behind their output.
 */
function chain(layers, x, weights) {
  const k = layers.findIndex(layer => layer.kind === "join");
  if (k >= 0) {
    const split = x.length - layers[k].n;
    const h = chain(layers.slice(0, k), x.subarray(0, split), weights);
    return chain(layers.slice(k + 1), Float64Array.from([...h, ...x.subarray(split)]), weights);
  }
  return layers.reduce((y, layer) => LAYERS[layer.kind](layer, y, weights), x);
}

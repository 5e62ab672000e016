// What the page carries, as scratchvae/explorer/page.py has put it in: `model` has the networks, the test images with
// their codes and terms, and what is known of the latents.

const model = JSON.parse(document.getElementById("model").textContent);
model.weights = halves(bytesOf(model.weights));
model.images = await inflated(bytesOf(model.images));  // n rows of D bytes
model.codes = floats(bytesOf(model.codes));  // n rows of J numbers, what `VAE.encode_mean` says
model.terms = floats(bytesOf(model.terms));  // n rows of rate and distortion

/** Return what zlib has compressed. */
async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return the numbers of float32 in some bytes, the lowest byte first. */
function floats(bytes) {
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, k) => view.getFloat32(4 * k, true));
}

/** Return the class of the k-th test image, as a conditional model is told it: a number, or null for another model. */
function classOf(k) {
  return model.n_classes ? model.labels[k] : null;
}

/** Return the code of the k-th test image. */
function codeOf(k) {
  return Float64Array.from(model.codes.subarray(k * model.n_latent, (k + 1) * model.n_latent));
}

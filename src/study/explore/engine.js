/* The first browsers with all that the page needs. */
const NEWEST = "Chrome and Edge from 91, Firefox from 113 and Safari from 16.4 can open this page.";

/* The engine in the page: the crate's own code as WebAssembly. See explore/src/lib.rs for the other side. */
class Engine {
  /* Starts the engine from the bytes of the module, plain or gzip. */
  static async load(wasm) {
    if (wasm[0] === 0x1f && wasm[1] === 0x8b) {
      if (typeof DecompressionStream === "undefined") {
        throw new Error(`This browser cannot unpack the engine: it has no DecompressionStream. ${NEWEST}`);
      }
      const plain = new Blob([wasm]).stream().pipeThrough(new DecompressionStream("gzip"));
      wasm = new Uint8Array(await new Response(plain).arrayBuffer());
    }
    if (!WebAssembly.validate(wasm)) {
      throw new Error(`This browser cannot run the engine: its WebAssembly has no 128-bit vectors (SIMD). ${NEWEST}`);
    }
    const { instance } = await WebAssembly.instantiate(wasm, {});
    return new Engine(instance.exports);
  }

  #exports;
  #stopped = null;

  constructor(exports) {
    this.#exports = exports;
  }

  /* Whether the kernels for 128-bit vectors run. */
  get simd() {
    return this.#exports.simd() === 1;
  }

  /* A trained model, from the bytes of a bundle. */
  open(bundle) {
    return new Model(this, this.call("open", [bundle]));
  }

  /* A training from its beginning; what is left out of the options is as usual. */
  trainer(options = {}) {
    return new Trainer(this, this.call("practice", [new TextEncoder().encode(JSON.stringify(options))]));
  }

  /* Calls a function. A typed array among the arguments becomes an address and a length. The result is never 0: that is an
     error, and its text is thrown. */
  call(name, args) {
    if (this.#stopped) throw new Error(this.#stopped);
    const lent = [];
    let result = 0;
    try {
      const flat = args.flatMap((value) => {
        if (!ArrayBuffer.isView(value)) return [value];
        const at = this.#exports.reserve(value.byteLength) >>> 0; // an address above 2 GiB comes as a negative number
        lent.push([at, value.byteLength]);
        const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
        new Uint8Array(this.#exports.memory.buffer, at, value.byteLength).set(bytes);
        return [at, value.length];
      });
      result = this.#exports[name](...flat);
    } catch (error) {
      // A panic is a RuntimeError, a stack that overflows is a RangeError. Either leaves the engine's state half changed.
      if (!(error instanceof WebAssembly.RuntimeError || error instanceof RangeError)) throw error;
      this.#stopped = (error instanceof WebAssembly.RuntimeError && this.#message()) || `the engine stopped: ${error.message}`;
      throw new Error(this.#stopped);
    } finally {
      if (!this.#stopped) for (const [at, length] of lent) this.#exports.release(at, length);
    }
    if (result === 0) throw new Error(this.#message());
    return result;
  }

  #text(at, length) {
    return new TextDecoder().decode(new Uint8Array(this.#exports.memory.buffer, at, length).slice());
  }

  #message() {
    return this.#text(this.#exports.message() >>> 0, this.#exports.message_bytes());
  }

  /* Part `index` of the last answer, copied. */
  floats(index) {
    const at = this.#exports.answer(index) >>> 0, length = this.#exports.answer_bytes(index) / 4;
    return length === 0 ? new Float32Array(0) : new Float32Array(this.#exports.memory.buffer, at, length).slice();
  }

  /* The last answer, if it was a text. */
  json() {
    return JSON.parse(this.#text(this.#exports.answer(0) >>> 0, this.#exports.answer_bytes(0)));
  }

  /* Forgets a model. */
  close(number) {
    if (!this.#stopped) this.#exports.close(number);
  }
}

/* Numbers as the engine takes them. */
function asFloats(values) {
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

/* A model with its images: a trained one, or that of a training as it is now. */
class Model {
  #engine;
  #number;
  #images = null;

  constructor(engine, number) {
    this.#engine = engine;
    this.#number = number;
    this.info = this.fresh();
  }

  /* What `info` was when the model was opened, as it is now. */
  fresh() {
    return this.#ask("info").json();
  }

  #ask(name, ...args) {
    this.#engine.call(name, [this.#number, ...args]);
    return this.#engine;
  }

  #three(name, x, z) {
    const engine = this.#ask(name, asFloats(x), asFloats(z));
    return { likelihood: engine.floats(0), prior: engine.floats(1), posterior: engine.floats(2) };
  }

  /* E[x|z] of points z, n·K numbers, as n·D; and the pixels' spread, or null. */
  decode(z) {
    const engine = this.#ask("decode", asFloats(z));
    return { mean: engine.floats(0), sigma: this.info.sigma ? engine.floats(1) : null };
  }

  /* x ~ p(x|z), D numbers. */
  throwImage(z, seed) {
    return this.#ask("throw_image", asFloats(z), seed).floats(0);
  }

  /* q(z|x) of images, n·D numbers: μ and log σ², n·K each. */
  encode(x) {
    const engine = this.#ask("encode", asFloats(x));
    return { mu: engine.floats(0), logvar: engine.floats(1) };
  }

  /* log p(x|z), log p(z), log q(z|x) of one image and n points. */
  logWeights(x, z) {
    return this.#three("log_weights", x, z);
  }

  /* Their slopes in z, n·K each. */
  slopes(x, z) {
    return this.#three("slopes", x, z);
  }

  /* n points z ~ N(0, I). The first do not depend on n. */
  priorDraws(n, seed) {
    return this.#ask("prior_draws", n, seed).floats(0);
  }

  /* n points z ~ q(z|x). The first do not depend on n. */
  encoderDraws(x, n, seed) {
    return this.#ask("encoder_draws", asFloats(x), n, seed).floats(0);
  }

  #all() {
    if (!this.#images) {
      const engine = this.#ask("images");
      this.#images = { x: engine.floats(0), labels: engine.floats(1) };
    }
    return this.#images;
  }

  /* Image i as the model sees it, D numbers in [0, 1]. */
  testImage(i) {
    const pixels = this.info.pixels;
    return this.#all().x.slice(i * pixels, (i + 1) * pixels);
  }

  /* What it shows, or null. */
  testLabel(i) {
    return this.#all().labels[i] ?? null;
  }

  /* μ of q(z|x) of all images, images·K numbers. */
  testMeans() {
    return this.#ask("means").floats(0);
  }

  /* −ELBO of the images, one draw of z each: { images, rec, kl, negElbo }, means in nats. */
  evaluate() {
    return this.#ask("evaluate").json();
  }

  close() {
    this.#engine.close(this.#number);
  }
}

/* A training on the built-in digits. */
class Trainer {
  #engine;
  #number;
  #model;

  constructor(engine, number) {
    this.#engine = engine;
    this.#number = number;
    this.#model = new Model(engine, number);
  }

  /* Makes n updates: { updates, loss, rec, kl }, updates since the beginning and means over the images of these n. */
  step(n) {
    this.#engine.call("step", [this.#number, n]);
    return this.#engine.json();
  }

  /* The command by which the program trains the same up to here. */
  command() {
    return this.#model.fresh().command;
  }

  /* −ELBO of the test images: { images, rec, kl, negElbo }. */
  evaluate() {
    return this.#model.evaluate();
  }

  /* The chain rule of the next update, on two images of its batch: what `walk` of walk.js steps through. */
  tape() {
    this.#engine.call("tape", [this.#number]);
    return this.#engine.json();
  }

  /* The model with the parameters as they are at every question. */
  model() {
    return this.#model;
  }

  close() {
    this.#model.close();
  }
}

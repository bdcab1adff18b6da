// Runs @vladmandic/face-api in Node on tfjs' WebAssembly backend: pictures in, its labels and times out, one JSON object.
//
// `node face_api.mjs FINDER MODULES FOLDER TASK ...`, FINDER ssd or tiny, MODULES the folder with node_modules. Reads
// FOLDER/TASK.npy: uint8[n, h, w] grey or uint8[n, h, w, 3] BGR. A task called `network` holds tight faces that go to
// the network alone; in any other, the package looks for the face itself.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const WARM_UP = 3;
const [finder, modules, folder, ...tasks] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), 'package.json'));
const say = console.log;
console.log = console.warn = console.error; // stdout is for the answer

function readNpy(file) {
  const bytes = readFileSync(file);
  const headerEnd = 10 + bytes.readUInt16LE(8);
  const header = bytes.subarray(10, headerEnd).toString('latin1');
  if (!header.includes("'|u1'") || header.includes("'fortran_order': True")) throw new Error(`${file}: not uint8 in C order`);
  const shape = header.match(/\(([^)]*)\)/)[1].split(',').filter((s) => s.trim()).map(Number);
  return { shape, data: bytes.subarray(headerEnd) };
}

function rgb(npy, index) {
  const [, height, width, channels = 1] = npy.shape;
  const size = height * width;
  const from = npy.data.subarray(index * size * channels, (index + 1) * size * channels);
  const out = new Uint8Array(size * 3);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) out[3 * i + c] = channels === 1 ? from[i] : from[3 * i + 2 - c];
  }
  return { out, height, width };
}

const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
wasm.setWasmPaths(path.join(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist') + path.sep);
wasm.setThreadsCount(1);
await tf.setBackend('wasm');
await tf.ready();
const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');
const root = path.dirname(require.resolve('@vladmandic/face-api/package.json'));
const net = finder === 'tiny' ? faceapi.nets.tinyFaceDetector : faceapi.nets.ssdMobilenetv1;
const options = finder === 'tiny' ? new faceapi.TinyFaceDetectorOptions() : new faceapi.SsdMobilenetv1Options();
await net.loadFromDisk(path.join(root, 'model'));
await faceapi.nets.faceExpressionNet.loadFromDisk(path.join(root, 'model'));

const best = (scores) => Object.entries(scores).reduce((a, b) => (b[1] > a[1] ? b : a))[0];

async function answer(task, { out, height, width }) {
  const picture = tf.tensor3d(out, [height, width, 3], 'int32');
  try {
    if (task === 'network') return best(await faceapi.nets.faceExpressionNet.predictExpressions(picture));
    const found = await faceapi.detectSingleFace(picture, options).withFaceExpressions();
    return found ? best(found.expressions) : null;
  } finally {
    picture.dispose();
  }
}

const told = {};
for (const task of tasks) {
  const npy = readNpy(path.join(folder, `${task}.npy`));
  for (let i = 0; i < WARM_UP; i++) await answer(task, rgb(npy, 0));
  const labels = [], ms = [];
  let core = 0; // microseconds
  for (let i = 0; i < npy.shape[0]; i++) {
    const picture = rgb(npy, i); // a browser has RGB already, so this is not timed
    const cpu = process.cpuUsage();
    const began = performance.now();
    labels.push(await answer(task, picture));
    ms.push(performance.now() - began);
    const { user, system } = process.cpuUsage(cpu);
    core += user + system;
  }
  told[task] = { labels, ms, core_ms: core / 1e3 / npy.shape[0] };
}
const { version } = require('@vladmandic/face-api/package.json');
say(JSON.stringify({ version, backend: `tfjs ${tf.version.tfjs} WebAssembly, ${finder === 'tiny' ? 'TinyFaceDetector' : 'SSD MobileNet v1'}`, tasks: told }));

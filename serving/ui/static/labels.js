// Label maps in the browser: one byte a pixel, {ids: Uint8Array, width, height, classes}.

/** Classes of the example scenes, by id, under the names that class tables use for them. */
const SCENE_CLASSES = [["sky"], ["building"], ["pole"], ["road"], ["sidewalk", "pavement"], ["tree", "vegetation"],
  ["sign", "traffic sign"], ["fence"], ["car", "vehicle"], ["pedestrian", "person"], ["bicyclist", "rider"]];

export const plain = (name) => name.toLowerCase().replaceAll(/[_-]/g, " ");
export const painted = (classes) => classes.filter((row) => !row.ignore);
export const css = (row) => `rgb(${row.color.join(",")})`;

/** The id that means "no class" in a class table, or the first id where the table has none. */
export function voidId(classes) {
  return (classes.find((row) => row.ignore) ?? classes[0]).id;
}

/** Four bytes a pixel, as canvases store them, for each id; ids of no class are transparent, and void where it would hide a photo. */
export function colourTable(classes, { only = null, voidToo = true } = {}) {
  const table = new Uint8ClampedArray(256 * 4);
  for (const row of classes) {
    if ((only === null || row.id === only) && (voidToo || !row.ignore)) table.set([...row.color, 255], row.id * 4);
  }
  return new Uint32Array(table.buffer);
}

/** Draw values through a table of 256 colours onto a canvas of the map's size. */
export function drawValues(canvas, values, width, height, table) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pixels = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) pixels[i] = table[values[i]];
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
}

/** The grey values of a PNG: ids, or confidence. */
export async function greyValues(blob) {
  const { data, width, height } = await pixelsOf(blob);
  return { values: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]), width, height };
}

/** The numbers of superpixels, whose low bytes are red and high bytes green. */
export async function segmentNumbers(blob) {
  const { data, width, height } = await pixelsOf(blob);
  return Uint16Array.from({ length: width * height }, (_, i) => data[4 * i] + 256 * data[4 * i + 1]);
}

async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** A scene's map in a model's classes: by name, or each by the next class where no name fits. */
export function fromScene({ values, width, height }, classes) {
  const ids = new Map(classes.map((row) => [plain(row.name), row.id]));
  const found = SCENE_CLASSES.map((names) => ids.get(names.find((name) => ids.has(name))));
  const own = painted(classes);
  const known = found.some((id) => id !== undefined);
  const table = found.map((id, index) => (known ? id ?? voidId(classes) : own[index % own.length].id));
  return { ids: values.map((value) => table[value]), width, height, classes };
}

/** A map in another class table, by the classes' names; classes without a namesake become void. */
export function inClasses(map, classes) {
  const ids = new Map(classes.map((row) => [plain(row.name), row.id]));
  const table = new Uint8Array(256).fill(voidId(classes));
  for (const row of map.classes) table[row.id] = ids.get(plain(row.name)) ?? voidId(classes);
  return { ...map, ids: map.ids.map((id) => table[id]), classes };
}

/** A map at another size, by the nearest pixel. */
export function resized(map, width, height) {
  const ids = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * map.height) / height) * map.width;
    for (let x = 0; x < width; x++) ids[y * width + x] = map.ids[row + Math.floor(((x + 0.5) * map.width) / width)];
  }
  return { ...map, ids, width, height };
}

/** The pixels of each class that is there, [row, share] with the largest first. */
export function shares({ ids, classes }) {
  const counts = new Uint32Array(256);
  for (const id of ids) counts[id]++;
  return classes.map((row) => [row, counts[row.id] / ids.length]).filter(([, share]) => share > 0)
    .sort((a, b) => b[1] - a[1]);
}

/** A palette PNG whose indices are the ids and whose palette is the class colours. */
export async function encodePng({ ids, width, height, classes }) {
  const palette = new Uint8Array(256 * 3);
  for (const row of classes) palette.set(row.color, row.id * 3);
  const rows = new Uint8Array((width + 1) * height); // each row starts with its filter, 0
  for (let y = 0; y < height; y++) rows.set(ids.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const head = new Uint8Array(13);
  new DataView(head.buffer).setUint32(0, width);
  new DataView(head.buffer).setUint32(4, height);
  head.set([8, 3], 8); // 8 bits, indexed
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const chunks = [["IHDR", head], ["PLTE", palette], ["IDAT", await packed.bytes()], ["IEND", new Uint8Array()]];
  return new Blob(["\x89PNG\r\n\x1a\n"].map(bytes).concat(chunks.map(chunk)), { type: "image/png" });
}

const bytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

function chunk([name, data]) {
  const all = new Uint8Array(data.length + 12);
  const view = new DataView(all.buffer);
  view.setUint32(0, data.length);
  all.set(bytes(name), 4);
  all.set(data, 8);
  view.setUint32(data.length + 8, crc(all.subarray(4, data.length + 8)));
  return all;
}

const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(data) {
  let value = 0xffffffff;
  for (const byte of data) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// Label maps in the browser: one byte a pixel, {ids: Uint8Array, width, height, classes}.

/** Classes of the example scenes, each with another name that class tables use for it. */
export const SCENE_CLASSES = [
  ["sky"], ["building"], ["pole"], ["road"], ["sidewalk", "pavement"], ["tree", "vegetation"], ["sign", "traffic sign"],
  ["fence"], ["car", "vehicle"], ["pedestrian", "person"], ["bicyclist", "rider"],
].map(([name, also], id) => ({ id, name, also }));

export const plain = (name) => name.toLowerCase().replaceAll(/[_-]/g, " ");
export const painted = (classes) => classes.filter((row) => !row.ignore);
export const css = (row) => `rgb(${row.color.join(",")})`;

/** The id that means "no class" in a class table, or the first id where the table has none. */
export const voidId = (classes) => (classes.find((row) => row.ignore) ?? classes[0]).id;

/** Draw a map in the colours of its classes, on a canvas of its size; ids of no class are transparent. */
export function drawMap(canvas, { ids, width, height, classes }) {
  const bytes = new Uint8Array(256 * 4);
  for (const { id, color: [red, green, blue, alpha = 255] } of classes) bytes.set([red, green, blue, alpha], id * 4);
  const colours = new Uint32Array(bytes.buffer);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let index = 0; index < ids.length; index++) pixels[index] = colours[ids[index]];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The numbers in a PNG's pixels: {ids, width, height}. Red is the low byte, and the only one in a Uint8Array. */
export async function readIds(blob, Numbers = Uint8Array) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { ids: new Numbers(new Uint32Array(data.buffer)), width, height };
}

/**
 * A map in another class table, by the classes' names; classes without a namesake become void. Where no class has one,
 * each becomes the next class of the table.
 */
export function inClasses(map, classes) {
  const ids = new Map(classes.map((row) => [plain(row.name), row.id]));
  const found = map.classes.map((row) => ids.get(plain(row.name)) ?? ids.get(row.also));
  const known = related(map, classes);
  const own = painted(classes);
  const table = new Uint8Array(256).fill(voidId(classes));
  map.classes.forEach((row, index) => {
    table[row.id] = known ? found[index] ?? voidId(classes) : own[index % own.length].id;
  });
  return { ...map, ids: map.ids.map((id) => table[id]), classes };
}

/** Whether a class of the map has a namesake in the class table; void does not count. */
export const related = (map, classes) =>
  painted(map.classes).some((row) => classes.some(({ name }) => [plain(row.name), row.also].includes(plain(name))));

/** Whether a picture is cut to another shape, about its middle; where the shapes are nearly alike it is stretched. */
export const isCut = (from, to) => Math.abs(Math.log((from.width * to.height) / (from.height * to.width))) > 0.2;

/** A map at another size, by the nearest pixel. */
export function resized(map, width, height) {
  const scales = [map.width / width, map.height / height];
  const [across, down] = isCut(map, { width, height }) ? Array(2).fill(Math.min(...scales)) : scales;
  const [left, top] = [(map.width - width * across) / 2, (map.height - height * down) / 2];
  const ids = Uint8Array.from({ length: width * height }, (_, index) => {
    const x = Math.floor(left + ((index % width) + 0.5) * across);
    const y = Math.floor(top + (Math.floor(index / width) + 0.5) * down);
    return map.ids[y * map.width + x];
  });
  return { ...map, ids, width, height };
}

/** The classes that are there with the largest first: [{row, share, sure}]; the last two are 0..1. */
export function shares({ ids, classes }, confidence) {
  const [counts, sums] = [new Uint32Array(256), new Uint32Array(256)];
  ids.forEach((id, index) => {
    counts[id]++;
    sums[id] += confidence?.[index] ?? 0;
  });
  const there = classes.filter(({ id }) => counts[id]).sort((a, b) => counts[b.id] - counts[a.id]);
  return there.map((row) => ({ row, share: counts[row.id] / ids.length, sure: sums[row.id] / counts[row.id] / 255 }));
}

/** A palette PNG whose indices are the ids and whose palette is the class colours. */
export async function encodePng({ ids, width, height, classes }) {
  const palette = new Uint8Array(256 * 3);
  for (const row of classes) palette.set(row.color, row.id * 3);
  const rows = new Uint8Array((width + 1) * height); // each row starts with its filter, 0
  for (let y = 0; y < height; y++) rows.set(ids.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const head = [...bigEndian(width), ...bigEndian(height), 8, 3, 0, 0, 0]; // 8 bits, indexed
  const packed = await new Response(new Response(rows).body.pipeThrough(new CompressionStream("deflate"))).bytes();
  const chunks = [chunk("IHDR", head), chunk("PLTE", palette), chunk("IDAT", packed), chunk("IEND", [])];
  const signature = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return new Blob([signature, ...chunks.flat()], { type: "image/png" });
}

/** The parts of a chunk of a PNG: its length, its name and data, and their CRC-32. */
function chunk(name, data) {
  const content = new Uint8Array([...new TextEncoder().encode(name), ...data]);
  const sum = content.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), -1);
  return [bigEndian(data.length), content, bigEndian(~sum)];
}

/** The CRC-32 of each byte. */
const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});
const bigEndian = (number) => new Uint8Array(Uint32Array.of(number).buffer).reverse();

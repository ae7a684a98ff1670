// Liquidation heat: notional per time and price as colours. Long positions (liquidated on a fall) are warm, short ones cool; the
// scale is logarithmic and the same for both, so that equal brightness means equal dollars.

const RAMPS = {
  dark: {
    long: ["#1d130c", "#5c2a0c", "#a84b10", "#f0883e", "#ffe0b8"],
    short: ["#0a1a22", "#0c4258", "#14749b", "#4bb3e0", "#d2f1ff"],
  },
  light: {
    long: ["#fff3e6", "#fcd0a0", "#f09a4c", "#c25a0d", "#6d2800"],
    short: ["#e9f6fd", "#b0dcf2", "#5fb2dc", "#1a77a8", "#083a5a"],
  },
};
const DECADES = 2.5; // from the brightest colour down to nothing
const STEPS = 96;

const darkQuery = matchMedia("(prefers-color-scheme: dark)");
export const onThemeChange = (listener) => darkQuery.addEventListener("change", listener);
export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function ramp(stops) {
  const rgb = stops.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: STEPS }, (_, i) => {
    // Bent, so that the few largest hills stand out; the legend is drawn with the same colours.
    const at = (i / (STEPS - 1)) ** 1.6 * (rgb.length - 1);
    const low = Math.min(rgb.length - 2, Math.floor(at));
    return rgb[low].map((from, channel) => Math.round(from + (rgb[low + 1][channel] - from) * (at - low)));
  });
}

const cache = {};
export function ramps() {
  const theme = darkQuery.matches ? "dark" : "light";
  cache[theme] ??= { long: ramp(RAMPS[theme].long), short: ramp(RAMPS[theme].short) };
  return cache[theme];
}

// The top of the scale: the largest notional in sight, rounded up to 1, 2 or 5 times a power of ten.
export function scaleTop(columns) {
  let most = 0;
  for (const column of columns) {
    for (const usd of column.long) if (usd > most) most = usd;
    for (const usd of column.short) if (usd > most) most = usd;
  }
  if (most <= 0) return null;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].find((step) => step * power >= most) * power;
}

export const scaleBottom = (top) => top / 10 ** DECADES;

// Paint the columns of a history into a canvas of w x h device pixels. xAt and priceAt translate between pixels and values.
export function paintHeat(canvas, history, { width, height, secondAt, priceAt, top }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const { long, short } = ramps();
  const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const longPixels = long.map(pack);
  const shortPixels = short.map(pack);
  const hole = pack(cssColour("--hole").match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const line = pack(cssColour("--line").match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const columnAt = columnsByPixel(history, width, secondAt);
  const rowAt = Int32Array.from({ length: height }, (_, y) => (history.rowLogWidth ? Math.floor(Math.log(priceAt(y)) / history.rowLogWidth) : 0));
  const logBottom = top ? Math.log(scaleBottom(top)) : 0;
  const perStep = top ? (STEPS - 1) / (Math.log(top) - logBottom) : 0;
  for (let x = 0; x < width; x++) {
    const column = columnAt[x] < 0 ? null : history.columns[columnAt[x]];
    if (column === null) continue;
    if (column.firstRow === null) {
      for (let y = 0; y < height; y++) pixels[y * width + x] = (x + y) % 8 < 3 ? line : hole;
      continue;
    }
    for (let y = 0; y < height; y++) {
      const row = rowAt[y] - column.firstRow;
      if (row < 0 || row >= column.long.length) continue;
      const longUsd = column.long[row];
      const shortUsd = column.short[row];
      const usd = longUsd > shortUsd ? longUsd : shortUsd;
      if (usd <= 0) continue;
      const step = Math.round((Math.log(usd) - logBottom) * perStep);
      if (step < 0) continue;
      pixels[y * width + x] = (longUsd > shortUsd ? longPixels : shortPixels)[step < STEPS ? step : STEPS - 1];
    }
  }
  context.putImageData(image, 0, 0);
}

// For each pixel across, the index of the column drawn there; -1 before the first and after the last; a hole where nothing came.
function columnsByPixel(history, width, secondAt) {
  const found = new Int32Array(width).fill(-1);
  const { columns } = history;
  let index = 0;
  for (let x = 0; x < width; x++) {
    const second = secondAt(x + 0.5);
    while (index < columns.length && columns[index].second < second) index++;
    if (index < columns.length && second > history.start(index)) found[x] = index;
  }
  return found;
}

export function paintLegend(canvas, colours) {
  canvas.width = STEPS;
  const context = canvas.getContext("2d");
  colours.forEach(([r, g, b], i) => {
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(i, 0, 1, canvas.height);
  });
}

// Numbers as text. Unknown is a word, never a zero. {text, value} is the text for people and the number it stands for.

const UNKNOWN = Object.freeze({ text: "unknown", value: null });
const known = (value) => typeof value === "number" && Number.isFinite(value);

// The same decimals for all prices of a market: six significant digits of its price, at least two decimals below 10,000.
export function priceDecimals(price) {
  if (!known(price) || price <= 0) return 2;
  const magnitude = Math.floor(Math.log10(price));
  return Math.max(0, Math.min(10, Math.max(5 - magnitude, magnitude < 4 ? 2 : 1)));
}

const fixed = new Map();
export function decimal(value, digits) {
  if (!fixed.has(digits)) fixed.set(digits, new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return fixed.get(digits).format(value).replace("-", "−");
}

export function price(value, digits) {
  return known(value) ? { text: decimal(value, digits), value } : UNKNOWN;
}

// Three significant digits with a unit: 950, 12.3 k, 4.56 M. Small amounts of base units keep decimals.
export function amount(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size === 0) return { text: "0", value };
  for (const [limit, unit] of [[1e12, " T"], [1e9, " B"], [1e6, " M"], [1e3, " k"]]) {
    if (size >= limit * 0.9995) {
      const scaled = value / limit;
      return { text: decimal(scaled, Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2) + unit, value };
    }
  }
  return { text: decimal(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 4), value };
}

// The same for axes, where 50 and 100 stand in one column.
export const axisAmount = (value) => amount(value).text.replace(/\.0+(?= |$)/, "");

export function usd(value) {
  const formatted = amount(value);
  return formatted.value === null ? UNKNOWN : { text: `${formatted.text} USD`, value };
}

export function percent(value, digits = 1) {
  return known(value) ? { text: `${decimal(value * 100, digits)} %`, value } : UNKNOWN;
}

export function signedPercent(value, digits = 2) {
  if (!known(value)) return UNKNOWN;
  const text = decimal(Math.abs(value) * 100, digits);
  const sign = Number(text.replaceAll(",", "")) === 0 ? "" : value > 0 ? "+" : "−";
  return { text: `${sign}${text} %`, value };
}

export function count(value) {
  return known(value) ? { text: decimal(value, 0), value } : UNKNOWN;
}

export function age(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const s = Math.max(0, seconds);
  if (s < 9.95) return { text: `${decimal(s, 1)} s`, value: seconds };
  if (s < 120) return { text: `${Math.round(s)} s`, value: seconds };
  if (s < 7200) return { text: `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`, value: seconds };
  if (s < 172800) return { text: `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`, value: seconds };
  return { text: `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`, value: seconds };
}

const two = (number) => String(number).padStart(2, "0");
export function clock(seconds, withSeconds = true) {
  if (!known(seconds)) return "unknown";
  const date = new Date(seconds * 1000);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}${withSeconds ? `:${two(date.getUTCSeconds())}` : ""}`;
}

export function stamp(ns) {
  if (!known(ns)) return "unknown";
  return new Date(ns / 1e6).toISOString().replace("T", " ").slice(0, 19);
}

// The base asset as a name for volumes: of xyz:TSLA, BTC-USD or BTCUSDT it is TSLA and BTC.
export function baseName(market) {
  const name = market.symbol.split(":").at(-1).split(/[-/_]/)[0];
  return name.replace(/(?<=.)(USDT|USDC|FDUSD|BUSD|USD)$/, "");
}

// A median of few minutes says little, so it says of how much of its window it is.
export function typicalFlow(market) {
  const covered = market.flow_window_covered_ratio;
  if (market.typical_flow_base === null) return { text: "unknown", value: null };
  const text = `${amount(market.typical_flow_base).text} ${baseName(market)} (${percent(covered, 0).text})`;
  return { text, value: market.typical_flow_base, state: covered < 0.5 ? "warn" : undefined };
}

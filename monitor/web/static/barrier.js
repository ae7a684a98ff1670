// The barrier curve: how much has to be sold (left of the price) or bought (right of it) before a price prints.

import { byId, setAttribute, setText } from "./dom.js";
import { amount, axisAmount, baseName, decimal, priceDecimals, signedPercent, typicalFlow } from "./format.js";
import { cssColour, onThemeChange } from "./heat.js";

const FONT = '11px system-ui, "DejaVu Sans", sans-serif';

export class BarrierChart {
  constructor() {
    this.host = byId("barrier");
    this.market = null;
    this.plot = new uPlot(this.options(), [[], [], [], [], [], [], []], this.host);
    new ResizeObserver(() => this.plot.setSize({ width: Math.max(80, this.host.clientWidth), height: Math.max(40, this.host.clientHeight) })).observe(this.host);
    onThemeChange(() => this.plot.redraw());
  }

  show(market) {
    this.market = market;
    const down = [...(market?.cascade.down?.barrier ?? [])].reverse();
    const up = market?.cascade.up?.barrier ?? [];
    const left = (name) => [...down.map((point) => point[name]), ...up.map(() => null)];
    const right = (name) => [...down.map(() => null), ...up.map((point) => point[name])];
    this.plot.setData([
      [...down, ...up].map((point) => point.price),
      left("volume_base"), left("lower_base"), left("upper_base"),
      right("volume_base"), right("lower_base"), right("upper_base"),
    ]);
    this.describe(down, up);
  }

  describe(down, up) {
    const market = this.market;
    const note = byId("barrier-note");
    if (!market || (!down.length && !up.length)) {
      setText(note, "unknown: needs a book and known accounts");
      setText(byId("flow-note"), "");
      setAttribute(this.host, "aria-label", "Barrier unknown");
      return;
    }
    const gaps = [...(market.cascade.down?.gaps ?? []), ...(market.cascade.up?.gaps ?? [])];
    const released = gaps.reduce((sum, gap) => sum + gap.forced_base, 0);
    const text = gaps.length ? `${gaps.length} unstable ${gaps.length === 1 ? "gap" : "gaps"}, releasing ${amount(released).text} ${baseName(market)}` : "no unstable gap inside the book";
    setText(note, text);
    const end = (points, index) => (points.length ? `${amount(points.at(index).volume_base).text} ${baseName(market)} to reach ${signedPercent(points.at(index).price / market.reference_price - 1).text}` : "unknown");
    setAttribute(this.host, "aria-label", `Barrier: fall ${end(down, 0)}, rise ${end(up, -1)}; ${text}`);
  }

  options() {
    const axis = (extra) => ({
      font: FONT,
      labelFont: FONT,
      stroke: () => cssColour("--muted"),
      grid: { stroke: () => cssColour("--grid"), width: 1 },
      ticks: { stroke: () => cssColour("--line"), width: 1, size: 4 },
      ...extra,
    });
    // To reach a price between two levels the further level has to print, so the step lies towards the nearer one.
    const after = uPlot.paths.stepped({ align: 1 });
    const before = uPlot.paths.stepped({ align: -1 });
    const line = (colour, paths) => ({ stroke: () => cssColour(colour), width: 1.6, paths, points: { show: false } });
    const bound = (paths) => ({ stroke: () => cssColour("--muted"), width: 0.5, paths, points: { show: false } });
    const fill = () => `color-mix(in srgb, ${cssColour("--muted")} 30%, transparent)`;
    return {
      width: Math.max(80, this.host.clientWidth),
      height: Math.max(40, this.host.clientHeight),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: (_, low, high) => (low === null ? [0, 1] : [low, high]) }, y: { range: (_, __, high) => [0, Math.max(1e-9, high || 1) * 1.06] } },
      axes: [
        axis({ size: 26, space: 80, values: (_, prices) => prices.map((price) => decimal(price, Math.max(0, priceDecimals(this.market?.reference_price) - (prices[1] - prices[0] >= 1 ? 2 : 0)))) }),
        axis({ size: 56, values: (_, volumes) => volumes.map(axisAmount) }),
      ],
      series: [{}, line("--long", after), bound(after), bound(after), line("--short", before), bound(before), bound(before)],
      bands: [{ series: [3, 2], fill }, { series: [6, 5], fill }],
      hooks: { drawClear: [(plot) => this.paintGaps(plot)], draw: [(plot) => this.paintMarks(plot)], setCursor: [(plot) => this.read(plot)] },
    };
  }

  paintGaps({ ctx, bbox, valToPos }) {
    const cascade = this.market?.cascade;
    ctx.save();
    ctx.fillStyle = cssColour("--gap");
    ctx.globalAlpha = 0.22;
    for (const gap of [...(cascade?.down?.gaps ?? []), ...(cascade?.up?.gaps ?? [])]) {
      const from = valToPos(gap.from_price, "x", true);
      const to = valToPos(gap.to_price, "x", true);
      ctx.fillRect(Math.min(from, to), bbox.top, Math.max(1, Math.abs(to - from)), bbox.height);
    }
    ctx.restore();
  }

  paintMarks(plot) {
    const market = this.market;
    if (!market || market.reference_price === null) return;
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.lineWidth = ratio;
    ctx.fillStyle = cssColour("--muted");
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    ctx.fillText(`in ${baseName(market)}`, bbox.left + 6 * ratio, bbox.top + 4 * ratio);
    const x = plot.valToPos(market.reference_price, "x", true);
    if (x >= bbox.left && x <= bbox.left + bbox.width) {
      ctx.strokeStyle = ctx.fillStyle = cssColour("--strong");
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    const y = market.typical_flow_base === null ? -Infinity : plot.valToPos(market.typical_flow_base, "y", true);
    if (y >= bbox.top) {
      ctx.strokeStyle = cssColour("--flow");
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
    const off = market.typical_flow_base !== null && y < bbox.top ? ", above this chart" : "";
    setText(byId("flow-note"), `(${typicalFlow(market).text}${off})`);
  }

  read(plot) {
    const note = byId("barrier-note");
    const { left } = plot.cursor;
    const market = this.market;
    if (!market || market.reference_price === null || left === undefined || left < 0) {
      if (market) this.describe([...(market.cascade.down?.barrier ?? [])].reverse(), market.cascade.up?.barrier ?? []);
      return;
    }
    const price = plot.posToVal(left, "x");
    const fall = price <= market.reference_price;
    const points = (fall ? market.cascade.down : market.cascade.up)?.barrier ?? [];
    const point = points.find((level) => (fall ? level.price <= price : level.price >= price));
    const where = `${decimal(price, priceDecimals(market.reference_price))} (${signedPercent(price / market.reference_price - 1).text})`;
    setText(note, point ? `${where}: ${fall ? "sell" : "buy"} ${amount(point.volume_base).text} ${baseName(market)} (${amount(point.lower_base).text} to ${amount(point.upper_base).text})` : `${where}: beyond the displayed book`);
  }
}

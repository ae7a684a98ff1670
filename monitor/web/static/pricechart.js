// The price line over the liquidation heat, and the strip of liquidations under it.

import { byId, setAttribute, setText } from "./dom.js";
import { amount, axisAmount, clock, decimal, priceDecimals } from "./format.js";
import { cssColour, onThemeChange, paintHeat, paintLegend, ramps, scaleBottom, scaleTop } from "./heat.js";
import { History } from "./history.js";

const AXIS_WIDTH = 74;
const FONT = '11px system-ui, "DejaVu Sans", sans-serif';

export class PriceChart {
  constructor() {
    this.host = byId("heat");
    this.strip = byId("liquidated");
    this.canvas = document.createElement("canvas");
    this.history = new History(1_800);
    this.rangeRatio = 0.1;
    this.centre = null;
    this.price = null;
    this.painted = "";
    this.outdated = true; // the heat has to be painted again
    this.top = null;
    this.cursor = null;
    this.plot = new uPlot(this.priceOptions(), [[], []], this.host);
    this.stripPlot = new uPlot(this.stripOptions(), [[], [], []], this.strip);
    new ResizeObserver(() => this.resize()).observe(this.host);
    onThemeChange(() => this.draw());
  }

  reset(windowSeconds) {
    this.history = new History(windowSeconds);
    this.centre = null;
    this.draw();
  }

  setRange(ratio) {
    this.rangeRatio = ratio;
    this.centre = null;
    this.draw();
  }

  add(samples) {
    this.history.add(samples);
    this.draw();
  }

  // The price of this moment, for the mark at the axis; null while it is unknown or stale.
  setPrice(price) {
    if (price === this.price) return;
    this.price = price;
    this.plot.redraw(false);
  }

  resize() {
    this.plot.setSize(size(this.host));
    this.stripPlot.setSize(size(this.strip));
  }

  draw() {
    const { columns } = this.history;
    this.top = scaleTop(columns);
    this.outdated = true;
    const seconds = columns.map((column) => column.second);
    this.plot.setData([seconds, columns.map((column) => column.price)]);
    this.stripPlot.setData([seconds, columns.map((column) => column.liquidatedLong), columns.map((column) => column.liquidatedShort)]);
    this.describe();
  }

  describe() {
    const { long, short } = ramps();
    paintLegend(byId("legend-long"), long);
    paintLegend(byId("legend-short"), short);
    const text = this.top ? `${amount(scaleBottom(this.top)).text} to ${amount(this.top).text} USD a row, logarithmic` : "no liquidation prices in sight";
    setText(byId("legend-scale"), text);
    const prices = this.history.columns.map((column) => column.price).filter((price) => price !== null);
    const label = prices.length
      ? `Price over ${Math.round(this.history.windowSeconds / 60)} minutes from ${Math.min(...prices)} to ${Math.max(...prices)}, with liquidation heat; the clusters table has the numbers`
      : "Price and liquidation heat: nothing known yet";
    setAttribute(this.host, "aria-label", label);
  }

  timeRange() {
    const end = this.history.columns.at(-1)?.second ?? 1;
    return [end - this.history.windowSeconds, end + this.history.windowSeconds * 0.01];
  }

  // Centred on the price, but moving only when the price has moved a tenth of the range, so that the picture stands still.
  priceRange() {
    const { columns } = this.history;
    const price = columns.findLast((column) => column.price !== null)?.price ?? null;
    if (price === null) return [0, 1];
    if (this.centre === null || Math.abs(price / this.centre - 1) > this.rangeRatio * 0.1) this.centre = price;
    let low = this.centre * (1 - this.rangeRatio);
    let high = this.centre * (1 + this.rangeRatio);
    for (const column of columns) {
      if (column.low !== null) low = Math.min(low, column.low);
      if (column.high !== null) high = Math.max(high, column.high);
    }
    return [low, high];
  }

  axis(extra) {
    return {
      font: FONT,
      stroke: () => cssColour("--muted"),
      grid: { stroke: () => cssColour("--grid"), width: 1 },
      ticks: { stroke: () => cssColour("--line"), width: 1, size: 4 },
      ...extra,
    };
  }

  timeAxis(extra) {
    return this.axis({
      space: 70,
      incrs: [10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200],
      values: (_, seconds, __, ___, step) => seconds.map((second) => clock(second, step < 60)),
      ...extra,
    });
  }

  priceOptions() {
    return {
      ...size(this.host),
      ms: 1e-3,
      padding: [6, 4, 0, 16],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: () => this.timeRange() }, y: { range: () => this.priceRange() } },
      axes: [
        this.timeAxis({ size: 26 }),
        this.axis({
          side: 1,
          size: AXIS_WIDTH,
          values: (_, prices) => prices.map((price) => decimal(price, Math.max(0, priceDecimals(this.centre) - (prices.length > 1 && prices[1] - prices[0] >= 1 ? 2 : 0)))),
        }),
      ],
      series: [{}, { stroke: () => cssColour("--strong"), width: 1.6, spanGaps: false, points: { show: false } }],
      hooks: {
        drawClear: [(plot) => this.paint(plot)],
        draw: [(plot) => this.tag(plot)],
        setCursor: [(plot) => this.read(plot)],
      },
    };
  }

  paint(plot) {
    const { left, top, width, height } = plot.bbox;
    if (width < 1 || height < 1 || !this.history.columns.length) return;
    const { x, y } = plot.scales;
    const key = [left, top, width, height, x.min, x.max, y.min, y.max].join(" ");
    if (this.outdated || key !== this.painted) {
      this.outdated = false;
      this.painted = key;
      paintHeat(this.canvas, this.history, {
        width: Math.round(width),
        height: Math.round(height),
        secondAt: (pixel) => plot.posToVal(pixel + left, "x", true),
        priceAt: (pixel) => plot.posToVal(pixel + top, "y", true),
        top: this.top,
      });
    }
    plot.ctx.drawImage(this.canvas, Math.round(left), Math.round(top));
  }

  // The last price at the axis, unless it is not known now.
  tag(plot) {
    if (this.price === null || !this.history.columns.length) return;
    const { ctx, bbox } = plot;
    const y = plot.valToPos(this.price, "y", true);
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = cssColour("--strong");
    ctx.globalAlpha = 0.5;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.fillStyle = cssColour("--strong");
    ctx.fillRect(bbox.left + bbox.width + 2 * ratio, y - 8 * ratio, (AXIS_WIDTH - 4) * ratio, 16 * ratio);
    ctx.fillStyle = cssColour("--panel");
    ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    ctx.fillText(decimal(this.price, priceDecimals(this.price)), bbox.left + bbox.width + 7 * ratio, y);
    ctx.restore();
  }

  read(plot) {
    const { left, top } = plot.cursor;
    const node = byId("readout");
    if (left === undefined || left < 0 || !this.history.columns.length) {
      setText(node, "Point at the chart to read a value.");
      return;
    }
    const second = plot.posToVal(left, "x");
    const at = plot.posToVal(top, "y");
    const index = this.history.columns.findIndex((column) => column.second >= second);
    const column = index >= 0 && second > this.history.start(index) ? this.history.columns[index] : null;
    if (column === null) {
      setText(node, `${clock(second)} UTC: nothing was received`);
    } else if (column.firstRow === null || this.history.rowLogWidth === null) {
      setText(node, `${clock(column.second)} UTC: ${column.stale ? "the market was stale" : "liquidation prices were not known"}`);
    } else {
      const width = this.history.rowLogWidth;
      const row = Math.floor(Math.log(at) / width);
      const digits = priceDecimals(at);
      const inside = row - column.firstRow;
      const range = `${decimal(Math.exp(row * width), digits)} to ${decimal(Math.exp((row + 1) * width), digits)}`;
      const outside = inside < 0 || inside >= column.long.length;
      const heat = outside ? "further than is kept" : `longs ${amount(column.long[inside]).text} USD, shorts ${amount(column.short[inside]).text} USD`;
      setText(node, `${clock(column.second)} UTC, price ${decimal(column.price, digits)}; liquidated from ${range}: ${heat}`);
    }
  }

  stripOptions() {
    const bars = uPlot.paths.bars({ size: [0.9, 8, 1], align: -1 });
    const series = (colour) => ({ stroke: () => cssColour(colour), fill: () => cssColour(colour), width: 0, paths: bars, points: { show: false } });
    return {
      ...size(this.strip),
      ms: 1e-3,
      padding: [4, 4, 0, 16],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: () => this.timeRange() }, y: { range: (_, __, most) => [0, Math.max(1_000, most || 0) * 1.1] } },
      axes: [
        this.timeAxis({ size: 22 }),
        this.axis({ side: 1, size: AXIS_WIDTH, space: 24, values: (_, values) => values.map(axisAmount) }),
      ],
      series: [{}, series("--long"), series("--short")],
    };
  }
}

function size(node) {
  return { width: Math.max(80, node.clientWidth), height: Math.max(40, node.clientHeight) };
}

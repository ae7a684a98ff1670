// The recent past of one market, as columns of equal time spans: fetched once, then continued by samples of the stream.

export const COLUMNS = 360;

export class History {
  constructor(windowSeconds) {
    this.windowSeconds = windowSeconds;
    this.span = Math.max(1, Math.ceil(windowSeconds / COLUMNS));
    this.columns = [];
    this.rowLogWidth = null;
  }

  // Samples as the server sends them: parallel lists.
  add(samples) {
    if (samples.row_log_width !== null && samples.row_log_width !== this.rowLogWidth) {
      if (this.rowLogWidth !== null) this.columns = [];
      this.rowLogWidth = samples.row_log_width;
    }
    for (let i = 0; i < samples.second.length; i++) {
      this.push({
        second: samples.second[i],
        price: samples.price[i],
        low: samples.low[i],
        high: samples.high[i],
        liquidatedLong: samples.liquidated_long_usd[i],
        liquidatedShort: samples.liquidated_short_usd[i],
        stale: samples.stale[i],
        firstRow: samples.first_row[i],
        long: samples.long_usd[i],
        short: samples.short_usd[i],
      });
    }
  }

  push(column) {
    const last = this.columns.at(-1);
    // A sample that was fetched can still arrive by stream; one from long before means that the server's history began anew.
    if (last && column.second <= last.second && column.second > last.second - 5) return;
    if (last && column.second < last.second) this.columns = [];
    if (this.columns.length && Math.floor(column.second / this.span) === Math.floor(last.second / this.span)) {
      column.liquidatedLong += last.liquidatedLong;
      column.liquidatedShort += last.liquidatedShort;
      this.columns[this.columns.length - 1] = column;
    } else {
      this.columns.push(column);
    }
    const oldest = column.second - this.windowSeconds;
    while (this.columns.length && this.columns[0].second < oldest) this.columns.shift();
  }

  // Where each column is drawn: it stands for the time up to its second, and no further back than samples are apart.
  start(index) {
    const { second } = this.columns[index];
    const spacing = Math.max(this.span, second < this.fineFrom() ? 60 : 1);
    const before = index > 0 ? this.columns[index - 1].second : -Infinity;
    return Math.max(before, second - spacing * 1.5);
  }

  // The server keeps one sample a second for the last 30 minutes and one a minute before.
  fineFrom() {
    return (this.columns.at(-1)?.second ?? 0) - 1_800;
  }
}

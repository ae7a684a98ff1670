// Headline and tables of the market on show.

import { byId, fillFigures, fillRows, putData, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

// later: seconds since the message arrived; ages go on growing while nothing new comes.
export function showHeadline(market, later) {
  const digits = format.priceDecimals(market.reference_price);
  const aged = (seconds) => format.age(seconds === null ? null : seconds + later + market.evaluation_age_s);
  setText(byId("headline-title"), `${market.venue} ${market.symbol}`);
  putData(byId("price"), format.price(market.reference_price, digits));
  setText(byId("source"), market.reference_source === "none" ? "no price" : market.reference_source);
  setText(byId("provenance"), market.provenance);
  setAttribute(byId("provenance"), "data-kind", market.provenance);
  const quote = (price) => format.price(price, digits).text;
  const pair = (text, value) => ({ text, value });
  fillFigures(byId("figures"), [
    ["reference-age", "price age", "referenceAge", aged(market.reference_age_s)],
    ["bid", "bid", "bidAsk", format.price(market.best_bid, digits)],
    ["ask", "ask", "bidAsk", format.price(market.best_ask, digits)],
    ["index", "index", "index", pair(quote(market.index_price), market.index_price)],
    ["funding", "funding", "funding", format.signedPercent(market.funding_rate, 4)],
    ["open-interest", "open interest", "openInterest", format.usd(market.open_interest_usd)],
    ["observed", "observed", "observed", format.usd(market.observed_notional_usd)],
    ["coverage", "coverage", "coverage", format.percent(market.coverage_ratio)],
    ["accounts", "accounts (left out)", "accounts", pair(`${format.count(market.accounts).text} (${format.count(market.accounts_excluded).text})`, market.accounts)],
    ["account-age", "account age, median", "accountAge", aged(market.median_account_age_s)],
    ["account-oldest", "account age, oldest", "accountAge", aged(market.oldest_account_age_s)],
    ["typical-flow", "typical minute", "typicalFlow", format.typicalFlow(market)],
    ["evaluation-age", "evaluated", "evaluation", format.age(market.evaluation_age_s + later)],
  ]);
}

export function showClusters(market) {
  const digits = format.priceDecimals(market.reference_price);
  const computed = market.histogram_known;
  const largest = Math.max(0, ...market.clusters.map((cluster) => cluster.notional_usd));
  const rows = [...market.clusters]
    // The next to be reached comes first, whichever side it is on.
    .sort((a, b) => Math.abs(a.distance_ratio) - Math.abs(b.distance_ratio))
    .map((cluster) => [
      { text: cluster.side, side: cluster.side },
      format.price(cluster.price, digits),
      format.signedPercent(cluster.distance_ratio),
      { ...format.amount(cluster.notional_usd), className: cluster.notional_usd === largest ? "largest" : "" },
      format.count(cluster.accounts),
      format.percent(cluster.largest_account_share, 0),
      cluster.provenance,
    ]);
  fillRows(byId("clusters"), rows, computed ? "none within the distance that is looked at" : "unknown: no account with a known position, or no price");
  const sum = (side) => market.clusters.filter((cluster) => cluster.side === side).reduce((total, cluster) => total + cluster.notional_usd, 0);
  const seen = byId("clusters-coverage");
  setText(seen, market.coverage_ratio === null ? "How much of the open interest is seen is not known." : `${format.percent(market.coverage_ratio, 0).text} of the open interest is seen; the rest is missing here.`);
  setAttribute(seen, "data-state", market.coverage_ratio === null || market.coverage_ratio < 0.5 ? "warn" : null);
  setText(byId("clusters-note"), computed ? `longs ${format.usd(sum("long")).text}, shorts ${format.usd(sum("short")).text}` : "");
}

function survives(ratio) {
  if (ratio === null) return { text: "at any depth", value: "" };
  if (ratio > 1) return { text: "even with all of it", value: ratio, state: "bad" };
  return { ...format.percent(ratio, 0), state: ratio >= 0.5 ? "warn" : undefined };
}

export function showCascade(market) {
  const digits = format.priceDecimals(market.reference_price);
  const base = format.baseName(market);
  const distance = (price) => format.signedPercent(price === null || market.reference_price === null ? null : price / market.reference_price - 1);
  const landings = [];
  const survivals = [];
  for (const [direction, side, cascade] of [["fall", "long", market.cascade.down], ["rise", "short", market.cascade.up]]) {
    for (const landing of cascade?.landing ?? []) {
      const at = landing.last_trade_price;
      const end = landing.book_exhausted ? at ?? cascade.reach_price : at;
      const text = landing.book_exhausted ? `beyond ${format.price(end, digits).text}` : at === null ? "no trade" : format.price(at, digits).text;
      const away = distance(end);
      landings.push([
        { text: direction, side },
        { text: `${format.amount(landing.exogenous_base).text} ${base}`, value: landing.exogenous_base },
        { text, value: end, state: landing.book_exhausted ? "bad" : undefined },
        away,
        { text: `${format.amount(landing.forced_base).text} ${base}`, value: landing.forced_base },
      ]);
    }
    for (const point of cascade?.survival ?? []) {
      const ratio = point.survival_ratio;
      survivals.push([
        { text: direction, side },
        format.price(point.price, digits),
        distance(point.price),
        survives(ratio),
      ]);
    }
  }
  const why = "unknown: needs a book and a typical flow";
  fillRows(byId("landing"), landings, why);
  fillRows(byId("survival"), survivals, why);
  const volumes = [market.cascade.down, market.cascade.up].flatMap((cascade) => cascade?.survival.map((point) => point.exogenous_base) ?? []);
  const largest = Math.max(...volumes);
  setText(byId("survival-note"), volumes.length ? `against ${format.amount(largest).text} ${base} (${format.usd(largest * market.reference_price).text})` : "");
}

// Before the first message about a market: its name, and no number of the one before.
export function showNothing(name) {
  setText(byId("headline-title"), name.replace("/", " "));
  putData(byId("price"), { text: "waiting", value: null });
  for (const id of ["source", "provenance", "clusters-note", "clusters-coverage", "survival-note", "completeness", "liquidated-totals"]) setText(byId(id), "");
  for (const node of byId("figures").querySelectorAll("data")) putData(node, { text: "waiting", value: null });
  for (const id of ["clusters", "landing", "survival", "feeds"]) fillRows(byId(id), [], "waiting");
}

export function showLiquidated(market) {
  const completeness = market.liquidation_completeness;
  setText(byId("completeness"), completeness === "none" ? "none seen" : completeness);
  const totals = `since the start: longs ${format.usd(market.liquidated_long_usd).text}, shorts ${format.usd(market.liquidated_short_usd).text}`;
  setText(byId("liquidated-totals"), completeness === "none" ? "whether the feed would show them is not known yet" : totals);
}

export function showFeeds(market, later) {
  const rows = market.feeds.map((feed) => [
    feed.channel,
    format.age(feed.age_s === null ? null : feed.age_s + later + market.evaluation_age_s),
    feed.stale ? { text: `stale: ${feed.reason || "too old"}`, state: "bad", className: "wrap" } : { text: feed.reason || "good", state: feed.reason ? "warn" : "ok", className: "wrap" },
  ]);
  fillRows(byId("feeds"), rows, "no channel is subscribed");
}

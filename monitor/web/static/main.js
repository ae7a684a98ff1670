// Wires the page: one stream in, one market on show. Numbers are never shown as live when the stream is silent or the market stale.

import { AccountsPanel } from "./accounts.js";
import { BarrierChart } from "./barrier.js";
import { byId, setAttribute, setText } from "./dom.js";
import { age, clock } from "./format.js";
import { showFiring, showOverview, showReadinessUnknown, showRecent, showStatus } from "./health.js";
import { COLUMNS } from "./history.js";
import { showCascade, showClusters, showFeeds, showHeadline, showLiquidated, showNothing } from "./panels.js";
import { PriceChart } from "./pricechart.js";
import { SILENCE_MS, Stream } from "./stream.js";
import { installTooltips } from "./terms.js";

// Seconds that the chart can show. Until the reader picks one, it is the smallest that holds what there is.
const WINDOWS = [...document.querySelectorAll("#windows input")].map((input) => Number(input.value));

const state = { name: null, market: null, heardAt: 0, markets: [], window: WINDOWS[0], chosen: false, awaiting: null };
const accounts = new AccountsPanel();
const charts = { price: new PriceChart(), barrier: new BarrierChart() };
installTooltips();

const stream = new Stream((message) => handlers[message.type]?.(message));

const handlers = {
  hello() {
    if (state.name) loadHistory();
  },
  markets(message) {
    state.markets = message.markets;
    fillPicker();
    showOverview(message.markets, state.name);
  },
  market(message) {
    if (`${message.venue}/${message.symbol}` !== state.name) return;
    state.market = message;
    state.heardAt = performance.now();
    showMarket();
  },
  sample(message) {
    if (`${message.venue}/${message.symbol}` !== state.name) return;
    // Samples that come while the past is being fetched are in the answer or follow it; keep them in order.
    if (state.awaiting) state.awaiting.push(message.samples);
    else if (!fit(message.samples)) charts.price.add(message.samples);
  },
  gone(message) {
    if (`${message.venue}/${message.symbol}` !== state.name || !state.market) return;
    state.market = { ...state.market, stale: true, stale_reasons: ["the market is not watched any more"] };
    showMarket();
  },
  status: showStatus,
  alerts(message) {
    showFiring(message.firing);
    showRecent(message.recent);
  },
  firing(message) {
    showFiring(message.firing);
  },
};

function showMarket() {
  const market = state.market;
  showTrust();
  // Nobody looks: what is drawn now would be drawn anew on return.
  if (document.hidden) return;
  showHeadline(market, 0);
  showClusters(market);
  showCascade(market);
  showLiquidated(market);
  showFeeds(market, 0);
  charts.price.setPrice(market.stale ? null : market.reference_price);
  charts.barrier.show(market);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  showLink();
  charts.price.draw();
  if (state.market) showMarket();
});

// The three ways in which numbers can be less than live, each said in words.
function showTrust() {
  const market = state.market;
  byId("simulated").hidden = market?.provenance !== "simulated";
  const stale = byId("stale");
  stale.hidden = !market?.stale;
  setText(stale, market?.stale ? `stale: ${market.stale_reasons.join("; ") || "no reason given"}. Numbers of this market are not live.` : "");
  setAttribute(document.body, "data-stale", Boolean(market?.stale));
  document.title = market ? `${market.stale ? "stale " : ""}${market.symbol} · liqmon` : "liqmon";
}

function showLink() {
  const silence = stream.silenceMs();
  const link = byId("link");
  const lost = byId("lost");
  if (silence === Infinity) {
    setText(link, "connecting");
    setAttribute(document.body, "data-link", "connecting");
    return;
  }
  const broken = silence > SILENCE_MS;
  setAttribute(document.body, "data-link", broken ? "lost" : "live");
  setAttribute(link, "data-state", broken ? "bad" : "ok");
  setText(link, broken ? "connection lost" : "connected");
  lost.hidden = !broken;
  if (broken) {
    showReadinessUnknown();
    document.title = "no connection · liqmon";
    const from = state.market ? `the numbers below are of ${clock(state.market.as_of_ns / 1e9)} UTC and are not live` : "nothing is known";
    setText(lost, `No word from liqmon for ${age(Math.floor(silence / 1000)).text.replace(".0", "")}; ${from}.`);
  }
  if (state.market) {
    const later = (performance.now() - state.heardAt) / 1000;
    showHeadline(state.market, later);
    showFeeds(state.market, later);
  }
}
setInterval(showLink, 250);

function fillPicker() {
  const picker = byId("picker");
  const names = state.markets.map((market) => `${market.venue}/${market.symbol}`);
  if (picker.dataset.names !== names.join(" ")) {
    picker.dataset.names = names.join(" ");
    const groups = new Map();
    for (const market of state.markets) {
      if (!groups.has(market.venue)) {
        const group = document.createElement("optgroup");
        group.label = market.venue;
        groups.set(market.venue, group);
      }
      groups.get(market.venue).append(new Option(market.symbol, `${market.venue}/${market.symbol}`));
    }
    picker.replaceChildren(...(groups.size ? groups.values() : [new Option("waiting for markets")]));
    picker.disabled = !names.length;
    if (state.name) picker.value = state.name;
  }
  if (!state.name && names.length) select(names.includes(fromAddress()) ? fromAddress() : names[0]);
}

function select(name) {
  if (name === state.name) return;
  Object.assign(state, { name, market: null });
  byId("picker").value = name;
  const hash = `#${encodeURIComponent(name)}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
  charts.price.setPrice(null);
  charts.barrier.show(null);
  showNothing(name);
  showTrust();
  accounts.setMarket(name);
  stream.subscribe([name]);
  setWindow(state.chosen ? state.window : WINDOWS[0]);
}

// Unless the reader picked a span, take the smallest that holds the history; tells whether that is another than before.
function fit(samples) {
  const kept = samples.begins_second === null || !samples.second.length ? 0 : samples.second.at(-1) - samples.begins_second;
  const wanted = WINDOWS.find((seconds) => seconds >= kept) ?? WINDOWS.at(-1);
  if (state.chosen || wanted === state.window) return false;
  setWindow(wanted);
  return true;
}

function setWindow(seconds) {
  state.window = seconds;
  for (const input of document.querySelectorAll("#windows input")) input.checked = Number(input.value) === seconds;
  if (state.name) loadHistory();
}

async function loadHistory() {
  const name = state.name;
  const awaiting = (state.awaiting = []);
  charts.price.reset(state.window);
  const [venue, ...symbol] = name.split("/");
  try {
    const path = `/api/v1/markets/${encodeURIComponent(venue)}/${encodeURIComponent(symbol.join("/"))}/history`;
    const response = await fetch(`${path}?seconds=${state.window}&columns=${COLUMNS}`, { signal: AbortSignal.timeout(10_000) });
    const answer = await response.json();
    if (state.awaiting !== awaiting) return; // Another market or span was chosen meanwhile.
    if (response.ok && fit(answer.samples)) return;
    if (response.ok) charts.price.add(answer.samples);
    else setText(byId("readout"), answer.error.message);
  } catch (error) {
    if (state.awaiting !== awaiting) return;
    // The stream goes on by itself; the past is fetched again when it reconnects.
    setText(byId("readout"), `The past could not be fetched (${error.name}); the chart begins now.`);
  }
  for (const samples of awaiting) charts.price.add(samples);
  state.awaiting = null;
}

function fromAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

byId("picker").addEventListener("change", (event) => select(event.target.value));
addEventListener("hashchange", () => {
  const name = fromAddress();
  if (state.markets.some((market) => `${market.venue}/${market.symbol}` === name)) select(name);
});
byId("windows").addEventListener("change", (event) => {
  state.chosen = true;
  setWindow(Number(event.target.value));
});
byId("ranges").addEventListener("change", (event) => charts.price.setRange(Number(event.target.value)));

// One account in full: what it holds, what each price would have to do, and what the venue says of it.

import { byId, fillFigures, fillRows, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Poller } from "./poller.js";

const EVERY_MS = 2_000;
const STATES = { live: "ok", stale: "warn", unknown: "bad" };
const LEG_COLUMNS = [
  ["market"], ["side"], ["size", "n"], ["entry", "n"], ["price", "n"], ["USD", "n", "accountNotional"], ["unrealised", "n"], ["maintenance", "n"],
  ["liquidated at", "n", "legLiquidation"], ["away", "n", "legDistance"], ["bankrupt at", "n", "bankruptcy"],
  ["venue says", "n", "venueLiquidation"], ["differs by", "n", "disagreement"],
];

export class AccountDialog {
  constructor() {
    this.venue = this.account = null;
    this.dialog = byId("account");
    this.poller = new Poller(() => this.url(), () => this.show(), EVERY_MS);
    byId("account-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.poller.want(false));
    // A click beside the dialog is a click on its backdrop, which counts as the dialog itself.
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog && outside(this.dialog, event)) this.dialog.close(); });
    setInterval(() => { if (this.dialog.open && !document.hidden) this.show(); }, 1_000);
  }

  open(venue, account) {
    Object.assign(this, { venue, account });
    byId("account-margins").replaceChildren();
    this.poller.reset();
    this.show();
    this.dialog.showModal();
    this.poller.want(true);
  }

  url() {
    return this.account === null ? null : `/api/v1/accounts/${encodeURIComponent(this.venue)}/${encodeURIComponent(this.account)}`;
  }

  show() {
    const { answer, error } = this.poller;
    const gone = error?.status === 404;
    const late = answer !== null && this.poller.late();
    const state = gone ? "unknown" : late && answer.state === "live" ? "stale" : answer?.state ?? "waiting";
    setText(byId("account-title"), `Account on ${this.venue}`);
    setText(byId("account-name"), this.account);
    setText(byId("account-state"), state);
    setAttribute(byId("account-state"), "data-state", STATES[state] ?? "unknown");
    byId("account-simulated").hidden = !answer?.simulated;
    const reasons = gone ? [] : [...(answer?.reasons ?? [])];
    if (late) reasons.push(`no new answer since ${format.clock(answer.as_of_ns / 1e9)} UTC`);
    // Gone, or its alias is: what was known of it is not shown on.
    if (error !== null && (gone || answer === null)) reasons.push(error.message);
    const notice = byId("account-reasons");
    notice.hidden = !reasons.length && state !== "stale" && state !== "unknown";
    const consequence = { stale: " These numbers held once and are not live.", unknown: " There are no numbers that could be relied on." }[state] ?? "";
    setText(notice, notice.hidden ? "" : `${[state, reasons.join("; ")].filter(Boolean).join(": ")}.${consequence}`);
    setAttribute(this.dialog, "data-live", state === "live");
    setText(byId("account-note"), answer && !gone ? this.note(answer) : "");
    this.showMargins(gone ? null : answer);
  }

  note(answer) {
    const age = answer.age_s === null ? "the venue has said nothing of it" : `the venue's last word on it is ${format.age(answer.age_s + this.poller.later()).text} old`;
    const parts = [answer.mode === null ? "collateral mode unknown" : `${answer.mode} mode`, age];
    if (answer.sequence !== null) parts.push(`message ${answer.sequence}`);
    if (answer.redacted) parts.push("its name is an alias, which holds until liqmon is restarted");
    return `${parts.join("; ")}.`;
  }

  showMargins(answer) {
    const box = byId("account-margins");
    const margins = answer?.margins ?? [];
    while (box.children.length > margins.length) box.lastElementChild.remove();
    margins.forEach((margin, index) => {
      const section = box.children[index] ?? box.appendChild(newMargin());
      const legs = margin.legs.length;
      const name = margin.kind === "cross" ? "Cross margin" : `Isolated margin${legs ? `, ${margin.legs[0].symbol}` : ""}`;
      setText(section.querySelector("h3"), margin.pool ? `${name} (${margin.pool})` : name);
      fillFigures(section.querySelector("dl"), figures(margin, answer.state));
      fillRows(section.querySelector("table"), margin.legs.map((leg) => row(leg, answer.state)), "no position");
    });
  }
}

function newMargin() {
  const section = document.createElement("section");
  section.className = "margin";
  const list = document.createElement("dl");
  list.className = "figures";
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const [text, className, term] of LEG_COLUMNS) {
    const th = document.createElement("th");
    th.scope = "col";
    th.className = className ?? "";
    const name = document.createElement("span");
    name.textContent = text;
    if (term) Object.assign(name, { className: "term", tabIndex: 0 }).dataset.term = term;
    th.append(name);
    head.append(th);
  }
  table.createTBody();
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Positions");
  scroll.append(table);
  section.append(document.createElement("h3"), list, scroll);
  return section;
}

// Where numbers are known, a price or a move that is missing does not exist; otherwise it is not known.
const missing = (exists) => ({ text: exists ? "unknown" : "none", value: null });

function figures(margin, state) {
  const known = state !== "unknown" && margin.surplus_usd !== null;
  const move = (ratio) => (ratio === null ? missing(!known) : format.signedPercent(ratio));
  return [
    ["distance", "to liquidation", "accountDistance", margin.surplus_usd !== null && margin.surplus_usd < 0 ? { text: "liquidatable", value: margin.distance_ratio ?? "", state: "bad" } : move(margin.distance_ratio)],
    ["margin-call", "to the margin call", "marginCall", move(margin.margin_call_distance_ratio)],
    ["usage", "margin usage", "marginUsage", { ...format.percent(margin.margin_usage_ratio), state: margin.margin_usage_ratio >= 0.8 ? "warn" : undefined }],
    ["equity", "equity", "accountEquity", format.usd(margin.equity_usd)],
    ["maintenance", "maintenance", null, format.usd(margin.maintenance_usd)],
    ["surplus", "surplus", null, format.usd(margin.surplus_usd)],
    ["cash", "cash", null, format.usd(margin.cash_usd)],
  ];
}

function row(leg, state) {
  const unknown = state === "unknown" || leg.price === null;
  const digits = format.priceDecimals(leg.price ?? leg.entry_price ?? leg.liquidation_price);
  const price = (value, absent) => (value === null ? missing(absent) : format.price(value, digits));
  const holding = leg.contract === "asset";
  const differs = leg.disagreement_ratio;
  return [
    leg.symbol,
    { text: holding ? (leg.size < 0 ? "borrowed" : "held") : leg.size < 0 ? "short" : "long", side: leg.size < 0 ? "short" : "long" },
    leg.contract === "inverse" ? format.usd(Math.abs(leg.size)) : format.amount(Math.abs(leg.size)),
    price(leg.entry_price, !holding),
    price(leg.price, true),
    format.amount(leg.notional_usd),
    format.amount(leg.unrealized_usd),
    format.amount(leg.maintenance_usd),
    price(leg.liquidation_price, unknown),
    leg.distance_ratio === null ? missing(unknown) : format.signedPercent(leg.distance_ratio),
    price(leg.bankruptcy_price, unknown),
    leg.venue_liquidation_price === null ? { text: "not given", value: null } : format.price(leg.venue_liquidation_price, digits),
    differs === null ? { text: "–", value: null } : { ...format.signedPercent(differs, 4), state: Math.abs(differs) > 0.001 ? "warn" : undefined },
  ];
}

function outside(element, event) {
  const box = element.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}

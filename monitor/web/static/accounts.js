// Accounts at risk: a list that is asked for every few seconds while it can be seen, and one account in full.

import { AccountDialog } from "./account.js";
import { byId, fillKeyedRows, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { Poller } from "./poller.js";

const EVERY_MS = 2_000;
const LIMIT = 50;
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

export class AccountsPanel {
  constructor() {
    this.market = null;
    this.dialog = new AccountDialog();
    this.poller = new Poller(() => this.url(), () => this.show(), EVERY_MS);
    for (const id of ["account-scopes", "account-orders", "account-moves"]) byId(id).addEventListener("change", () => this.changed());
    byId("accounts").tBodies[0].addEventListener("click", (event) => {
      const row = this.poller.answer?.accounts[event.target.closest("tr")?.sectionRowIndex];
      if (row) this.dialog.open(row.venue, row.account);
    });
    byId("account-look").addEventListener("click", () => this.lookUp());
    byId("account-wanted").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      // Or the same key would press the button that has the focus once the dialog is open.
      event.preventDefault();
      this.lookUp();
    });
    new IntersectionObserver((entries) => this.poller.want(entries.at(-1).isIntersecting), { rootMargin: "200px" }).observe(byId("accounts-panel"));
    setInterval(() => { if (!document.hidden) this.show(); }, 1_000);
    this.show();
  }

  setMarket(name) {
    this.market = name;
    if (chosen("account-scope") === "market") this.changed();
  }

  // An account of the venue of the market on show.
  lookUp() {
    const name = byId("account-wanted").value.trim();
    if (name && this.market !== null) this.dialog.open(this.market.split("/")[0], name);
  }

  changed() {
    this.poller.reset();
    this.show();
  }

  url() {
    const query = new URLSearchParams({ order: chosen("account-order"), move: chosen("account-move"), limit: LIMIT });
    if (chosen("account-scope") === "all") return `/api/v1/accounts?${query}`;
    if (this.market === null) return null;
    const [venue, ...symbol] = this.market.split("/");
    return `/api/v1/markets/${encodeURIComponent(venue)}/${encodeURIComponent(symbol.join("/"))}/accounts?${query}`;
  }

  show() {
    const { answer, error } = this.poller;
    this.showTrust();
    for (const th of document.querySelectorAll("#accounts th[data-order]")) {
      const ascending = th.dataset.order === "distance";
      setAttribute(th, "aria-sort", th.dataset.order === chosen("account-order") ? (ascending ? "ascending" : "descending") : null);
    }
    setText(byId("accounts-move"), `at ${format.signedPercent(Number(chosen("account-move")), 0).text}`);
    const accounts = answer?.accounts ?? [];
    const rows = accounts.map((account) => this.row(account));
    fillKeyedRows(byId("accounts"), keysOf(accounts), rows, answer ? nobody(answer) : error ? `unknown: ${error.message}` : "waiting");
    setText(byId("accounts-note"), answer ? note(answer) : "");
    setAttribute(byId("accounts-note"), "data-state", answer && answer.unknown > answer.live ? "warn" : null);
    const made = accounts.filter((account) => account.simulated).length;
    const badge = byId("accounts-simulated");
    badge.hidden = !made;
    setText(badge, made === accounts.length ? "simulated" : "partly simulated");
  }

  showTrust() {
    const { answer, error } = this.poller;
    const late = answer !== null && this.poller.late();
    const reasons = [...(answer?.stale_reasons ?? [])];
    if (late) reasons.push(`no new answer${error ? ` (${error.message})` : ""}`);
    const stale = byId("accounts-stale");
    stale.hidden = !reasons.length;
    setText(stale, reasons.length ? `stale: ${reasons.join("; ")}. This list is of ${format.clock(answer.as_of_ns / 1e9)} UTC and is not live.` : "");
    setAttribute(byId("accounts-panel"), "data-live", answer !== null && !reasons.length);
  }

  row(account) {
    const kind = account.pool ? `${account.kind}, ${account.pool}` : account.kind;
    const leg = account.liquidation_price;
    return [
      { text: shorten(account.account), title: `${account.venue} ${account.account}`, button: `Account ${account.account} on ${account.venue}` },
      account.simulated ? { text: `${kind}, simulated`, state: "simulated" } : kind,
      format.amount(account.notional_usd),
      { ...format.amount(account.equity_usd), state: account.equity_usd <= 0 ? "bad" : undefined },
      // Below its maintenance margin there is no distance left; the move that is given would have to be made good.
      account.equity_usd < account.maintenance_usd ? { text: "liquidatable", value: account.distance_ratio ?? "", state: "bad" } : { ...orNone(account.distance_ratio), state: closeness(account.distance_ratio) },
      account.bad_debt_usd > 0 ? { ...format.amount(account.bad_debt_usd), state: "bad" } : format.amount(account.bad_debt_usd),
      account.symbol ?? { text: "none", className: "unknown" },
      leg === null ? { text: "none", value: null } : format.price(leg, format.priceDecimals(leg)),
      orNone(account.leg_distance_ratio),
      format.count(account.legs),
      format.age(account.age_s === null ? null : account.age_s + this.poller.later()),
    ];
  }
}

// What a row is about. In hedge mode a market may have two isolated positions; those are told apart by their order.
function keysOf(accounts) {
  const seen = new Map();
  return accounts.map(({ venue, account, kind, pool, symbol }) => {
    const key = JSON.stringify([venue, account, kind, pool, kind === "isolated" ? symbol : null]);
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return `${key}${seen.get(key)}`;
  });
}

// An address by its ends; what is short enough is shown whole.
export function shorten(name) {
  return name.length <= 22 ? name : `${name.slice(0, 8)}…${name.slice(-6)}`;
}

const orNone = (ratio) => (ratio === null ? { text: "none", value: null } : format.signedPercent(ratio));

function closeness(ratio) {
  if (ratio === null) return undefined;
  return Math.abs(ratio) < 0.01 ? "bad" : Math.abs(ratio) < 0.03 ? "warn" : undefined;
}

function nobody(answer) {
  const where = answer.symbol === null ? "" : ` with a position in ${answer.symbol}`;
  return answer.unknown ? `no live account${where}` : `no account${where} is known`;
}

function note(answer) {
  const { unknown } = answer;
  const left = unknown ? `${format.count(unknown).text} ${unknown === 1 ? "account is" : "accounts are"} not known well enough and not listed` : "no account is left out";
  const move = format.signedPercent(answer.move_ratio, 0).text;
  const debt = `bad debt of all of them at ${move}: ${format.usd(answer.bad_debt_usd).text}`;
  const aliases = answer.redacted ? " Names are aliases, which hold until liqmon is restarted." : "";
  return `${format.count(answer.accounts.length).text} of ${format.count(answer.live).text} live margin accounts; ${left}; ${debt}.${aliases}`;
}

// The state of everything around the market: connections, venues, process, alerts, and all markets at a glance.

import { byId, fillFigures, fillRows, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const STATES = { connected: "ok", degraded: "warn", connecting: "warn", waiting: "warn", failed: "bad" };

export function showStatus(status) {
  const ready = byId("ready");
  setAttribute(ready, "data-state", !status.ready ? "bad" : status.markets_stale ? "warn" : "ok");
  setText(ready, status.ready ? `ready, ${status.markets - status.markets_stale} of ${status.markets} markets fresh` : `not ready: ${status.not_ready_reasons[0] ?? "unknown"}`);
  setAttribute(ready, "title", status.not_ready_reasons.join("\n") || null);
  const venues = status.venues.map((venue) => [
    venue.quarantined_symbols.length ? { text: `${venue.venue} (set aside: ${venue.quarantined_symbols.join(", ")})`, className: "wrap" } : venue.venue,
    { text: `${format.count(venue.accounts_live).text} / ${format.count(venue.accounts_known).text}`, value: venue.accounts_live },
    format.count(venue.frames),
    format.count(venue.gaps),
    format.count(Object.values(venue.parse_errors).reduce((sum, errors) => sum + errors, 0)),
  ]);
  fillRows(byId("venues"), venues, "no venue has reported yet");
  const daemon = status.daemon;
  if (!daemon) return;
  setText(byId("instance"), daemon.instance);
  setText(byId("version"), `liqmon ${daemon.version}`);
  const asOf = daemon.as_of_ns;
  const connections = daemon.connections.map((connection) => [
    `${connection.venue} ${connection.connection}`,
    { text: [connection.state, connection.detail].filter(Boolean).join(": "), state: STATES[connection.state] ?? "warn", className: "wrap" },
    connection.last_message_ns === null ? { text: "none yet", value: null } : format.age((asOf - connection.last_message_ns) / 1e9),
    format.count(connection.messages),
    format.count(connection.disconnects),
  ]);
  fillRows(byId("connections"), connections, "no connection");
  const sum = (bySink) => Object.values(bySink).reduce((total, value) => total + value, 0);
  const flagged = (formatted, bad) => ({ ...formatted, state: bad ? "bad" : undefined });
  fillFigures(byId("process"), [
    ["uptime", "running for", null, format.age((asOf - daemon.started_ns) / 1e9)],
    ["compute", "evaluation takes", null, { text: `${format.decimal(daemon.projection_compute_s * 1e3, 1)} ms`, value: daemon.projection_compute_s }],
    ["lag", "lag", null, { text: `${format.decimal(daemon.lag_s * 1e3, 0)} ms`, value: daemon.lag_s, state: daemon.lag_s > 1 ? "bad" : undefined }],
    ["intake", "frames waiting", null, format.count(daemon.intake_frames)],
    ["dropped", "frames dropped", null, flagged(format.count(daemon.intake_dropped), daemon.intake_dropped > 0)],
    ["recording", "recording", null, daemon.recorder_error ? { text: daemon.recorder_error, value: 0, state: "bad" } : { text: daemon.recording ? "on" : "off", value: Number(daemon.recording) }],
    ["alert-queue", "alerts to deliver", null, format.count(sum(daemon.alert_queue))],
    ["alert-failures", "failed deliveries", null, format.count(sum(daemon.alert_failures))],
    ["alert-dropped", "alerts given up", null, flagged(format.count(sum(daemon.alert_dropped)), sum(daemon.alert_dropped) > 0)],
  ]);
}

export function showReadinessUnknown() {
  setAttribute(byId("ready"), "data-state", "unknown");
  setText(byId("ready"), "readiness unknown");
}

export function showFiring(alerts) {
  fillAlerts(byId("firing"), alerts, "nothing fires");
  setText(byId("alerts-note"), alerts.length ? `${alerts.length} firing` : "none firing");
}

export function showRecent(alerts) {
  fillAlerts(byId("recent"), alerts.slice(0, 50), "nothing has changed since the start");
}

// One line for each, which opens to the whole text; what fires is open from the start.
function fillAlerts(list, alerts, empty) {
  while (list.children.length > Math.max(1, alerts.length)) list.lastElementChild.remove();
  if (!alerts.length) {
    const item = list.children[0] ?? list.appendChild(document.createElement("li"));
    item.className = "unknown";
    for (const name of ["data-severity", "data-resolved", "data-key"]) setAttribute(item, name, null);
    setText(item, empty);
    return;
  }
  alerts.forEach((alert, index) => fillAlert(list.children[index] ?? list.appendChild(document.createElement("li")), alert, list.id === "firing"));
}

function fillAlert(item, alert, open) {
  const resolved = alert.ends_ns !== null;
  const key = `${alert.fingerprint}-${alert.starts_ns}-${resolved}`;
  if (item.getAttribute("data-key") !== key) {
    const details = document.createElement("details");
    const head = document.createElement("summary");
    head.append(document.createElement("time"), " ", document.createElement("strong"), " ", document.createElement("span"));
    details.append(head, document.createElement("p"));
    details.open = open;
    item.className = "";
    item.replaceChildren(details);
    setAttribute(item, "data-key", key);
  }
  setAttribute(item, "data-severity", alert.severity);
  setAttribute(item, "data-resolved", resolved);
  const [time, state, what] = item.querySelector("summary").children;
  const at = resolved ? alert.ends_ns : alert.starts_ns;
  setText(time, format.stamp(at).slice(11));
  setAttribute(time, "title", `${format.stamp(at)} UTC`);
  setText(state, resolved ? `resolved (${alert.annotations.reason ?? "over"})` : alert.severity);
  const { venue, provenance, symbol, ...rest } = alert.labels;
  setText(what, `${alert.name} ${[symbol, ...Object.keys(rest).sort().reverse().map((label) => rest[label])].filter(Boolean).join(" ")}`);
  setText(item.querySelector("p"), alert.summary);
}

export function showOverview(markets, selected) {
  const rows = markets.map((market) => {
    const name = `${market.venue}/${market.symbol}`;
    return [
      { text: `${market.venue} ${market.symbol}`, href: `#${encodeURIComponent(name)}`, className: name === selected ? "selected" : "" },
      market.stale ? { text: "stale", value: null } : format.price(market.reference_price, format.priceDecimals(market.reference_price)),
      market.stale ? { text: "stale", value: null } : format.percent(market.coverage_ratio),
      format.count(market.accounts),
      market.stale ? { text: `stale: ${market.stale_reasons.join(", ")}`, state: "bad", className: "wrap" } : { text: market.provenance === "observed" ? "fresh" : `fresh, ${market.provenance}`, state: "ok" },
    ];
  });
  fillRows(byId("overview"), rows, "no market is known yet");
}

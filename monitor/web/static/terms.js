// One sentence for every term on the page, and the tooltip that shows it on hover, focus and touch.

export const TERMS = {
  source: "Mark is the venue's own price for margin and liquidation; mid is the middle of the book, used while no mark is known.",
  provenance: "Observed numbers come from accounts that are watched, estimated ones from models of accounts that are hidden, simulated ones from a made-up exchange; they are never added up.",
  heat: "Each column is one moment, each row a price: the colour is the notional of positions that would be liquidated at that price, and the line is the price itself.",
  hole: "Hatched: at that time the market was stale or nothing was received, so nothing is drawn rather than something old.",
  liquidated: "Notional of positions that were reported as liquidated in each span of time.",
  completeness: "How much of the venue's liquidations the feed shows: complete, a throttled sample, a partial view (only watched accounts), or none seen so far.",
  clusters: "Prices near which many liquidation prices of watched accounts lie together.",
  clusterPrice: "Mean liquidation price of the cluster, weighted by notional.",
  distance: "Signed distance from the reference price.",
  notional: "Position size times liquidation price, summed over the cluster, in USD.",
  clusterAccounts: "Positions in the cluster, counted by account.",
  largestShare: "Share of the cluster's notional that belongs to one account; near 100 % the cluster is one position.",
  barrier: "Volume that somebody has to sell (or buy) at market before a price prints, given the displayed book and the forced orders set off on the way.",
  gap: "Once the price gets to the near end of a gap, forced orders alone carry it to the far end.",
  typicalFlow: "Median absolute net taker volume of the last 30 whole minutes that were watched, for comparison with the barrier; in brackets the share of them that was.",
  errorBand: "The true barrier lies between these bounds; they differ because prices are grouped into buckets.",
  landing: "Where the price ends when a given volume is traded at market and every forced order it sets off has been filled.",
  exogenous: "Volume that is traded at market to begin with, in base units: the configured amounts of USD, and multiples of the typical minute once that is known.",
  landingPrice: "Last trade of the whole cascade; \"beyond\" means that the displayed book was eaten up and the true landing is further away.",
  forced: "Volume of forced orders that the cascade releases, in base units.",
  survival: "How much of the displayed depth may vanish before the largest volume of the landing table reaches a price.",
  survivalRatio: "The price is reached if less than this share of the displayed depth is really there; \"even with all of it\" means that the book as displayed does not hold it either.",
  alerts: "Conditions of the configured rules that hold now, and those that began or ended last.",
  feeds: "What the numbers hang on: how old the last message of each channel is and whether it can be relied on.",
  accountsKnown: "Accounts whose state is fresh enough to be projected, out of all accounts that were ever seen.",
  gaps: "Breaks in a feed: disconnects, missing sequence numbers, dropped frames; what hangs on them is stale until a snapshot arrives.",
  parseErrors: "Frames or records that were refused because they were malformed or carried impossible values.",
  coverage: "Observed long and short size over twice the open interest: the share of the market that is visible.",
  referenceAge: "Time since the venue last sent the reference price.",
  bidAsk: "Best bid and best ask of the displayed book.",
  openInterest: "Size of all open positions of the market, counted once for each long and short pair, in USD.",
  observed: "Notional of the positions of watched accounts, long plus short.",
  accounts: "Accounts with a position here that are inside the projection, and those left out because their state is old, unknown or of an unknown mode.",
  accountAge: "Age of the watched accounts' state: the median and the oldest.",
  funding: "Funding rate per funding interval; positive means that longs pay shorts.",
  evaluation: "Time since all of this was last computed.",
  atRisk: "Margin accounts whose state is fresh, each the cross positions of an account together or one isolated position. Accounts of which too little is known are counted, and not listed.",
  accountKind: "Cross positions share one margin account, so all of their prices count; an isolated position has cash of its own.",
  accountNotional: "Size times price of all positions of the margin account, in USD.",
  accountEquity: "Cash and what all positions are worth at the present prices, in USD; at or below the maintenance margin the account is liquidated, and before that if part of it are assets with a haircut.",
  accountDistance: "How far all prices of the account would have to move together for it to be liquidated; none means that no common move does it, and liquidatable that its equity is below its maintenance margin already.",
  badDebt: "What the account would owe if all prices gapped by the chosen move and nothing could be closed on the way.",
  nearestLeg: "The position whose own liquidation price is nearest, all other prices staying where they are.",
  legLiquidation: "Price of this market at which the account is liquidated while all other prices stay.",
  legDistance: "How far that price is from the present one.",
  bankruptcy: "Price of this market at which the account's equity is zero; beyond it somebody else has to pay.",
  venueLiquidation: "The liquidation price that the venue itself reported, where that still holds.",
  disagreement: "Our liquidation price of now over the one the venue reported, minus one. Only for the one position of a margin account, as others move it; the comparison at equal prices is at /api/v1/accounts/disagreements.",
  accountAsOf: "Time since the venue's last word on the account; fills that were seen since are counted in.",
  accountState: "Live numbers hold now, stale ones held once, and unknown means that there are none.",
  marginUsage: "What of the equity is not free, maintenance margin and haircuts, over the equity; at 100 % the account is liquidated.",
  marginCall: "How far all prices would have to move together to bring the account to the configured level above liquidation; zero when it is there already.",
  index: "The venue's index or oracle price.",
};

export function installTooltips() {
  const tip = document.getElementById("tip");
  let shown = null;
  const hide = () => {
    tip.hidden = true;
    shown?.removeAttribute("aria-describedby");
    shown = null;
  };
  const show = (event) => {
    const term = event.target.closest?.(".term");
    if (!term || !TERMS[term.dataset.term]) return;
    if (shown && shown !== term) hide();
    shown = term;
    // A dialog lies above everything that is not in it.
    (term.closest("dialog") ?? document.body).append(tip);
    tip.textContent = TERMS[term.dataset.term];
    tip.hidden = false;
    term.setAttribute("aria-describedby", "tip");
    const at = term.getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - box.width - 8));
    const below = at.bottom + 6;
    const top = below + box.height < window.innerHeight ? below : Math.max(4, at.top - box.height - 6);
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("click", show);
  document.addEventListener("pointerout", (event) => { if (event.target.closest?.(".term") === shown && document.activeElement !== shown) hide(); });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

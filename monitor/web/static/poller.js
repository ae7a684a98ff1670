// Asks the server again and again while somebody looks, and knows how old the last answer is.

const TIMEOUT_MS = 8_000;

export class Poller {
  // url() names what to ask for, null for nothing; show(poller) is called after every answer, failure and second.
  constructor(url, show, everyMs) {
    Object.assign(this, { url, show, everyMs, answer: null, error: null, heardAt: null, wanted: false, timer: null, asking: null });
    document.addEventListener("visibilitychange", () => this.update());
  }

  // Whether what is asked for is on show.
  want(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.update();
  }

  // Forget the answer: something else is asked for from now on.
  reset() {
    this.answer = this.error = this.heardAt = null;
    this.stop();
    this.update();
  }

  update() {
    const active = this.wanted && !document.hidden;
    if (!active) this.stop();
    else if (this.timer === null && this.asking === null) this.ask();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.asking?.abort();
    this.asking = null;
  }

  async ask() {
    const url = this.url();
    if (url === null) return;
    const asking = (this.asking = new AbortController());
    const timeout = setTimeout(() => asking.abort(), TIMEOUT_MS);
    let answer = null;
    let error = null;
    try {
      const response = await fetch(url, { signal: asking.signal });
      const body = await response.json();
      if (response.ok) answer = body;
      else error = { status: response.status, ...body.error };
    } catch {
      error = { status: 0, code: "no_answer", message: "liqmon does not answer" };
    }
    clearTimeout(timeout);
    // Something else is asked for by now, or nobody looks any more.
    if (this.asking !== asking) return;
    this.asking = null;
    this.error = error;
    if (answer !== null) {
      this.answer = answer;
      this.heardAt = performance.now();
    }
    this.timer = setTimeout(() => {
      this.timer = null;
      this.update();
    }, this.everyMs);
    this.show(this);
  }

  // Seconds since the last good answer.
  silence() {
    return this.heardAt === null ? Infinity : (performance.now() - this.heardAt) / 1000;
  }

  // Seconds that have passed since the moment that the answer speaks of.
  later() {
    return this.silence() + (this.answer?.evaluation_age_s ?? 0);
  }

  // The server is gone, or three answers failed to come: what is on show is old.
  late() {
    return this.error?.status === 0 || this.silence() > (3 * this.everyMs) / 1000;
  }
}

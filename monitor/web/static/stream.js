// The WebSocket to the server: reconnects by itself, and knows how long it has been silent.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10_000;
export const SILENCE_MS = 2_000;

export class Stream {
  constructor(onMessage) {
    this.onMessage = onMessage;
    this.heardAt = null; // performance.now() of the last message
    this.wanted = [];
    this.delay = FIRST_DELAY_MS;
    this.connect();
  }

  connect() {
    const url = new URL("/api/v1/stream", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.addEventListener("message", (event) => {
      this.heardAt = performance.now();
      this.delay = FIRST_DELAY_MS;
      const message = JSON.parse(event.data);
      if (message.type === "hello") this.send();
      this.onMessage(message);
    });
    socket.addEventListener("close", () => {
      const delay = this.delay * (0.5 + Math.random());
      this.delay = Math.min(this.delay * 2, LONGEST_DELAY_MS);
      setTimeout(() => this.connect(), delay);
    });
  }

  subscribe(names) {
    this.wanted = names;
    if (this.socket.readyState === WebSocket.OPEN) this.send();
  }

  send() {
    this.socket.send(JSON.stringify({ subscribe: this.wanted }));
  }

  silenceMs() {
    return this.heardAt === null ? Infinity : performance.now() - this.heardAt;
  }
}

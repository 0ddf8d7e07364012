// Who may look, and whether edged answers: signs in and out, asks again and again while someone can
// see the page, and says how old is what it shows. Both pages have its elements.

import { $, attr, text } from "./dom.js";
import { ago } from "./words.js";

const ANSWER_MS = 5_000;
const LOST_AFTER_MS = 3_500;

export class Door {
  // `path()` is asked for every `pollMs`; `take(response)` takes the answer, and returns whether to ask
  // again at once; what it throws is why there is none. `main` is shown once something came.
  constructor({ main, path, take, pollMs }) {
    Object.assign(this, { main, path, take, pollMs });
    this.cameAt = 0; // By performance.now(); 0: nothing yet.
    this.trouble = ""; // Why nothing comes.
    this.allowed = true;
    this.wake = () => {};
    $("login-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const wrong = await this.login($("token").value.trim());
      text($("login-wrong"), wrong);
      if (!wrong) $("token").value = "";
    });
    $("logout").addEventListener("click", async () => {
      await this.ask("/logout").catch(() => {});
      this.showLogin("You have signed out.");
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wake();
    });
  }

  async open() {
    // A link may carry the token behind "#", which browsers send to nobody; it leaves the address bar at once.
    const fragment = location.hash.slice(1);
    if (fragment) history.replaceState(null, "", location.pathname);
    let token = "";
    try {
      token = decodeURIComponent(fragment);
    } catch {
      // No token of ours: they need no escapes.
    }
    if (token) await this.login(token);
    setInterval(() => this.showFresh(), 500);
    this.run();
  }

  async ask(path, token) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const asking = new AbortController();
    const timer = setTimeout(() => asking.abort(), ANSWER_MS);
    try {
      return await fetch(path, { cache: "no-store", headers, signal: asking.signal });
    } finally {
      clearTimeout(timer);
    }
  }

  async poll() {
    let more = false;
    try {
      const response = await this.ask(this.path());
      if (response.status === 401) {
        this.showLogin(this.cameAt ? "Your session has ended, or edged was restarted." : "");
        return false;
      }
      more = await this.take(response);
      this.cameAt = performance.now();
      this.trouble = "";
      $("login").hidden = true;
      this.main.hidden = false;
      $("logout").hidden = false;
    } catch (error) {
      this.trouble = error instanceof TypeError ? "no connection" : error.name === "AbortError" ? "no answer" : error.message;
    }
    this.showFresh();
    return more;
  }

  async run() {
    for (;;) {
      const began = performance.now();
      const looks = () => this.allowed && !document.hidden;
      while (looks() && (await this.poll()));
      const left = looks() ? Math.max(50, this.pollMs - (performance.now() - began)) : 2 ** 30;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  showFresh() {
    const { allowed, cameAt, trouble } = this;
    const ageMs = performance.now() - cameAt;
    const lost = cameAt > 0 && ageMs > Math.max(LOST_AFTER_MS, this.pollMs * 2) && !document.hidden && allowed;
    const state = !allowed ? "waiting" : !cameAt ? (trouble ? "lost" : "waiting") : lost ? "lost" : "live";
    attr($("fresh"), "data-state", state);
    attr(document.body, "data-lost", lost);
    const since = ago(ageMs / 1000);
    const told = !allowed ? "Signed out" : !cameAt ? (trouble ? `No answer from edged (${trouble})` : "Connecting") : lost ? `No answer from edged for ${since}${trouble ? ` (${trouble})` : ""}: what you see is that old` : "Live";
    text($("fresh-text"), told);
  }

  showLogin(why) {
    this.allowed = false;
    this.main.hidden = true;
    $("logout").hidden = true;
    $("login").hidden = false;
    if (why) text($("login-why"), why);
    $("token").focus();
    this.showFresh();
  }

  async login(token) {
    try {
      const response = await this.ask("/login", token);
      if (!response.ok) return (await response.text()).trim();
    } catch {
      return "No answer from edged.";
    }
    this.allowed = true;
    this.wake();
    return "";
  }
}

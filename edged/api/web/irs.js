// Which IRS is active, by whose grants, and what IRS knows of who is live where.

import { $, attr, el, icon, keyed, setIcon, text } from "./dom.js";
import { setFacts } from "./streams.js";
import { duration, number, plural } from "./words.js";

const POPS_MAX = 100; // What is wrong first; the rest is counted.
const STANDINGS = { alone: "the only one", active: "active", standby: "stands by", campaign: "asks for epochs" };

const cells = (count, numbers) => () => el("tr", {}, ...Array.from({ length: count }, (_, index) => el("td", numbers.includes(index) ? { class: "num" } : {})));

function setState(cell, state, word) {
  if (!cell.firstChild) cell.append(icon(state), el("span"));
  setIcon(cell.firstChild, state);
  text(cell.lastChild, word);
}

// One line per session that a PoP or an origin of this process has, or should have.
function sessions(status) {
  const homes = [...status.pops.map((pop) => [pop.role, pop.irs]), ...status.origins.map((origin) => [origin.role, origin.irs])];
  return homes.flatMap(([role, irs]) => irs.sessions.map((session) => {
    const { address, connected, active, twin } = session;
    const [state, word] = twin ? ["warn", `the same IRS as ${twin}`]
      : !connected ? ["warn", "not connected"]
      : active === null ? ["ok", "connected"]
      : active ? ["ok", `active, epoch ${irs.epoch}`]
      : irs.epoch === 0 ? ["warn", "connected; nobody is active"]
      : ["idle", "stands by"];
    return { key: `${role} ${address}`, role, address, state, word };
  }));
}

// What it is, since when, and whether that is well.
export function standing(irs) {
  const { seat } = irs;
  const word = STANDINGS[irs.standing] ?? irs.standing;
  if (irs.standing === "alone") return word;
  const since = `${word} for ${duration(seat.for_s)}`;
  if (irs.standing !== "standby") return since;
  if (seat.active_at) return `${since}, as it should: it is ready to take over`;
  if (seat.pops_here >= seat.majority) return `${since}, and no IRS is active`;
  return `${since}, and cannot tell who is active: it hears too few PoPs`;
}

// What there is to say of a standby is who is active and whether it hears enough PoPs: an epoch that
// it would ask for, and that nobody grants it one, would read as faults.
export function seatFacts(irs) {
  const { seat } = irs;
  const found = [["This IRS", standing(irs)]];
  if (seat.active_at) found.push(["The active one", `${seat.active_at}, as PoPs reach it`]);
  if (seat.leads) found.push(["Epoch", irs.epoch]);
  if (seat.majority && !seat.leads) found.push(["Hears", `${number(seat.pops_here)} of ${plural(seat.pops_known, "PoP")}`]);
  if (seat.majority && !seat.active_at) found.push(["Granted by", `${number(seat.grants)} of ${plural(seat.pops_known, "PoP")}, ${number(seat.majority)} must`]);
  if (seat.majority) found.push(["Became active", plural(seat.taken_over, "time")]);
  return found;
}

function facts(irs) {
  const { seat, live } = irs;
  const found = seatFacts(irs);
  found.push(["Channels live", number(live.channels)]);
  if (live.conflicts) found.push(["At several PoPs", live.conflicts_first.map((one) => `${one.channel} (${one.pops.join(", ")})`).join("; ") + (live.conflicts > live.conflicts_first.length ? ` and ${live.conflicts - live.conflicts_first.length} more` : "")]);
  if (seat.state_problem) found.push(["Not kept", seat.state_problem]);
  return found;
}

export function pops(irs) {
  const found = irs.pops.map((pop) => {
    const partial = irs.live.partial[pop.pop];
    const [state, word] = !pop.connected ? ["warn", "not connected"]
      : pop.grants === null ? ["ok", "obeys the only IRS"]
      : pop.grants ? ["ok", "grants our epoch"]
      : irs.seat.leads ? ["warn", "does not grant our epoch"]
      : ["idle", irs.seat.active_at ? "grants the active IRS" : "does not grant ours"];
    return { pop: pop.pop, state: partial ? "warn" : state, word: partial ? `${word}; ${partial}` : word, live: pop.live };
  });
  return found.sort((a, b) => (b.state === "warn") - (a.state === "warn")).slice(0, POPS_MAX);
}

export function showIrs(status) {
  const own = sessions(status);
  const [irs] = status.irs;
  attr($("irs"), "hidden", own.length === 0 && !irs);
  attr($("irs-facts"), "hidden", !irs);
  attr($("irs-pops").parentNode, "hidden", !irs);
  attr($("irs-sessions").parentNode, "hidden", own.length === 0);
  keyed($("irs-sessions").tBodies[0], own, (one) => one.key, cells(3, []), (row, one) => {
    text(row.cells[0], one.role);
    text(row.cells[1], one.address);
    setState(row.cells[2], one.state, one.word);
    attr(row, "data-state", one.state);
  });
  if (!irs) return;
  setFacts($("irs-facts"), facts(irs));
  keyed($("irs-pops").tBodies[0], pops(irs), (pop) => pop.pop, cells(3, [2]), (row, pop) => {
    text(row.cells[0], pop.pop);
    setState(row.cells[1], pop.state, pop.word);
    text(row.cells[2], pop.live === null ? "–" : number(pop.live));
    attr(row, "data-state", pop.state);
  });
}

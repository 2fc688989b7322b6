"use strict";
const link = document.getElementById("link");
const seen = new Map();
let skew = 0, heard = Date.now(), pending = false, again = false;

function words(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min" + (s < 600 ? " " + (s % 60) + " s" : "");
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor(s / 60) % 60 + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s / 3600) % 24 + " h";
}

function countdown(ms) {
  const s = Math.ceil(ms / 1000);
  if (s <= 0) return "no time: the lease is over";
  const two = n => String(n).padStart(2, "0");
  return Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
}

function tick() {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    time.title ||= time.textContent;
    time.textContent = words(now - Number(time.dataset.ago)) + " ago";
  }
  for (const time of document.querySelectorAll("time[data-until]")) {
    time.title ||= time.textContent;
    time.textContent = countdown(Number(time.dataset.until) - now);
  }
  const late = Date.now() - heard > 25000;
  document.body.classList.toggle("stale", late);
  link.classList.toggle("lost", late);
  link.textContent = late ? "not live: no word from the collector for " + words(Date.now() - heard) : "live · " + new Date(now).toISOString().slice(11, 19) + " UTC";
}

function adopt(board) {
  skew = Number(board.dataset.now) - Date.now();
  heard = Date.now();
  for (const fresh of board.querySelectorAll("section[id]")) {
    const html = fresh.outerHTML;
    if (seen.get(fresh.id) === html) continue;
    const old = document.getElementById(fresh.id);
    if (seen.has(fresh.id) && old) {
      const open = new Set([...old.querySelectorAll("details[open]")].map(one => one.id));
      for (const one of fresh.querySelectorAll("details")) one.open = open.has(one.id);
      old.replaceWith(fresh);
    }
    seen.set(fresh.id, html);
  }
}

async function renew() {
  if (pending) { again = true; return; }
  pending = true;
  try {
    const answer = await fetch("/page/board", { cache: "no-store", credentials: "same-origin" });
    if (answer.ok) {
      const holder = document.createElement("template");
      holder.innerHTML = await answer.text();
      adopt(holder.content.querySelector("main"));
      tick();
    }
  } catch { /* the status line tells how long nothing was heard */ }
  pending = false;
  if (again) { again = false; setTimeout(renew, 300); }
}

adopt(document.getElementById("board"));
tick();
setInterval(tick, 1000);
setInterval(renew, 10000);
const live = new EventSource("/api/v1/live");
live.addEventListener("change", renew);
live.addEventListener("open", renew);

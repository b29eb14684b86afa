"use strict";
// Numbers as people read them, and elements whose text is only ever text.

const SUFFIXES = ["", "k", "M", "G", "T", "P", "E", "Z"];

// Below a thousand, three significant digits. As in units.py.
function three(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

function short(value, unit) {
  let scaled = value, place = 0;
  while (Math.abs(scaled) >= 999.5 && place < SUFFIXES.length - 1) { scaled /= 1000; place += 1; }
  if (!place && Math.abs(value) < 0.095 && value) return `${Number(value.toPrecision(2))} ${unit || ""}`.trim();
  return `${!place && Number.isInteger(value) ? value : three(scaled)} ${SUFFIXES[place]}${unit || ""}`.trim();
}

function seconds(value) {
  const size = Math.abs(value);
  if (!size) return "0 s";
  const [unit, scale] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]].find(([, least]) => size >= 0.9995 * least) || ["ns", 1e-9];
  return size >= 999.5 ? `${Math.round(value).toLocaleString("en")} s` : `${size < 1e-11 ? Number((value / scale).toPrecision(2)) : three(value / scale)} ${unit}`;
}

// The label of an axis's tick, which is exact: "10 ms" for "10.0 ms".
function tick(text) { return text.replace(/\.0+(?= |$)/, ""); }

// A value in the unit of its metric: "FLOP", "B", "cycles" or "s".
function told(value, unit) {
  if (value === null || value === undefined) return "";
  return unit === "s" ? seconds(value) : unit === "cycles" ? short(value) : short(value, unit);
}

function share(part, whole) {
  if (!part || !whole) return "";
  const percent = 100 * part / whole;
  return percent < 0.05 ? "<0.1%" : `${percent.toFixed(1)}%`;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") made.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child);
  return made;
}

// Text for a chart's labels, which take a few tags: here none is meant.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Of the source files in a program the folder that all are in is no news.
function commonFolder(files) {
  const split = files.map((file) => file.split("/").slice(0, -1));
  if (!split.length) return "";
  let depth = 0;
  while (split.every((parts) => depth < parts.length && parts[depth] === split[0][depth])) depth += 1;
  return depth ? `${split[0].slice(0, depth).join("/")}/` : "";
}

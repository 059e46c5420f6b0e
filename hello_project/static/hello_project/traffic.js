// Keeps the console's first page up to date: fetches its parts and puts them in place of the old.
"use strict";

const BETWEEN = 5000;
const MONTH_EVERY = 12;
const PATIENCE = 4000;

const page = document.querySelector(".traffic");
const said = document.getElementById("said");
const pause = document.getElementById("pause");
let isPaused = false;
let isOver = false;
let isAsking = false;
let asked = 0;

function say(text, link) {
    if (said.textContent === text + (link ? link.textContent : "")) return;
    said.replaceChildren(text, ...(link ? [link] : []));
}

function sayItIsOver() {
    isOver = true;
    pause.hidden = true;
    const link = document.createElement("a");
    link.href = page.dataset.login;
    link.textContent = "Log in again";
    say("You are logged out, so this page is no longer updated. ", link);
}

function isBeingRead(part) {
    const selection = document.getSelection();
    return !selection.isCollapsed && selection.containsNode(part, true);
}

// What a person has done to a part, by ids, so that it can be done to the new one.
function stateOf(part) {
    const focused = part.contains(document.activeElement) ? document.activeElement.id : null;
    const open = [...part.querySelectorAll("details[open]")].map((element) => element.id);
    const scrolled = [...part.querySelectorAll(".chart-table")].map((element) => [
        element.id, element.scrollLeft, element.scrollTop,
    ]);
    return { focused, open, scrolled };
}

function restore(part, { focused, open, scrolled }) {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left, top] of scrolled) {
        const element = document.getElementById(id);
        if (element) [element.scrollLeft, element.scrollTop] = [left, top];
    }
    if (focused === null) return;
    const target = focused && document.getElementById(focused);
    (target || part.querySelector("h2")).focus({ preventScroll: true });
}

function put(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const moment = fresh.querySelector("[data-updated]");
    if (!moment) throw new Error("This is not the page's parts.");
    for (const part of fresh.querySelectorAll(".traffic-part")) {
        const old = document.getElementById(part.id);
        if (!old || isBeingRead(old)) continue;
        const state = stateOf(old);
        const wasOpen = state.open.map((id) => part.querySelector("#" + CSS.escape(id)));
        for (const details of wasOpen) details?.setAttribute("open", "");
        if (old.isEqualNode(part)) continue;
        old.replaceWith(document.adoptNode(part));
        restore(part, state);
    }
    const updated = document.getElementById("updated");
    updated.textContent = moment.dataset.updated;
    updated.dateTime = moment.dataset.moment;
}

async function refresh() {
    if (isPaused || isOver || isAsking || document.hidden) return;
    isAsking = true;
    try {
        const wantsMonth = asked % MONTH_EVERY === MONTH_EVERY - 1;
        const url = page.dataset.url + (wantsMonth ? "?month=1" : "");
        const answer = await fetch(url, {
            redirect: "manual",
            cache: "no-store",
            signal: AbortSignal.timeout(PATIENCE),
        });
        if (answer.type === "opaqueredirect" || answer.status === 403) {
            sayItIsOver();
        } else if (!answer.ok) {
            throw new Error(String(answer.status));
        } else {
            const text = await answer.text();
            if (isPaused) return;
            put(text);
            asked += 1;
            say("");
        }
    } catch {
        say("The server does not answer: what you see is from the time above. Trying again.");
    } finally {
        isAsking = false;
    }
}

pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Resume" : "Pause";
    refresh();
});
document.addEventListener("visibilitychange", refresh);
pause.hidden = false;
document.getElementById("reload").hidden = true;
setInterval(refresh, BETWEEN);

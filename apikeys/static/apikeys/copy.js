// Buttons that copy what stands beside them. Without this script, one click selects it.
"use strict";

// navigator.clipboard is there only on https and localhost.
async function copy(source) {
    const selection = window.getSelection();
    selection.selectAllChildren(source);
    try {
        await navigator.clipboard.writeText(source.textContent);
        return true;
    } catch {
        return document.execCommand("copy");
    }
}

for (const button of document.querySelectorAll("button[data-copies]")) {
    const status = button.parentElement.querySelector("[role=status]");
    button.hidden = false;
    button.addEventListener("click", async () => {
        const done = await copy(document.getElementById(button.dataset.copies));
        status.textContent = done ? "Copied" : "Selected: press Ctrl+C or ⌘C";
    });
}

// Whoever leaves this page does not find the key in it by going back.
window.addEventListener("pagehide", () => {
    for (const shown of document.querySelectorAll(".plaintext")) {
        shown.textContent = "It was shown once.";
    }
});

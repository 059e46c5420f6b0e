// A moment that is written chooses itself; without this script its button has to be chosen too.
"use strict";

for (const [typed, chosen] of [
    ["#id_expires_at_0, #id_expires_at_1", "input[name=expires][value=own]"],
    ["#id_own_overlap", "input[name=overlap][value=own]"],
]) {
    for (const field of document.querySelectorAll(typed)) {
        field.addEventListener("input", () => {
            if (field.value) document.querySelector(chosen).checked = true;
        });
    }
}

// A form that is sent once: the answer to a second click would replace the first one's.
"use strict";

for (const form of document.querySelectorAll("form[data-once], #apikey_form")) {
    form.addEventListener("submit", () => {
        for (const button of form.querySelectorAll("input[type=submit]")) {
            button.disabled = true;
        }
        for (const status of form.querySelectorAll("[data-while-sending]")) {
            status.textContent = status.dataset.whileSending;
        }
    });
}

// Back from the next page: the form may be sent again, and its answer says what that came to.
window.addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("input[type=submit]:disabled")) {
        button.disabled = false;
    }
});

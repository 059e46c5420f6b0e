"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const main = document.getElementById("swagger-ui");
SwaggerUIBundle({
    domNode: main,
    url: main.dataset.url,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: true,
    tryItOutEnabled: true,
    // A key is gone with the page.
    persistAuthorization: false,
    // Its badge would come from another site.
    validatorUrl: null,
});

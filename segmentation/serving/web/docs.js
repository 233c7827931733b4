// The API's documentation, to be tried out.
"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  syntaxHighlight: false,
  validatorUrl: null,
});

/** The API page: Swagger UI, served locally, over this server's own description. */

interface SwaggerOptions {
  url: string;
  dom_id: string;
  deepLinking: boolean;
  validatorUrl: null;
  tryItOutEnabled: boolean;
  docExpansion: "list";
  defaultModelsExpandDepth: number;
}

declare global {
  interface Window {
    SwaggerUIBundle?: (options: SwaggerOptions) => unknown;
  }
}

window.SwaggerUIBundle?.({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Null keeps Swagger UI from asking a server of its makers to validate the description.
  validatorUrl: null,
  tryItOutEnabled: false,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
});

export {};

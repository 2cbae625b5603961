//! The interface as an `OpenAPI` 3.1 document, made of the types and the routes that serve it.

use hyper::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::errors::ProblemDetails;
use super::requests::{InvalidateRequest, IssueRequest, ReactivateRequest};
use super::routes::Route;
use crate::keys::{Audience, Kid};
use crate::operations::{KeyPair, OperationSettings};

/// The document, as it is served for these terms below the path `prefix`.
pub fn document(terms: &OperationSettings, prefix: &str) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in Route::ALL {
        let (method, path) = route.template();
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method.as_str().to_ascii_lowercase()] = operation(route, &method, &mut schemas);
    }
    let mut definitions = schemas.take_definitions(true);
    let audiences: Vec<&str> =
        terms.rules.audiences.listed().iter().map(Audience::as_str).collect();
    // Which they are is configured, not compiled.
    let with_audience = [("Audience", None), ("IssueRequest", Some("audience"))];
    for (schema, member) in with_audience.into_iter().filter(|_| !audiences.is_empty()) {
        if let Some(schema) = definitions.get_mut(schema) {
            match member {
                Some(member) => schema["properties"][member]["enum"] = json!(audiences),
                None => schema["enum"] = json!(audiences),
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "jwksd administration",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Key pairs whose public halves jwksd publishes: issued, rotated, \
                invalidated with a grace period, reactivated and deleted. A change is published \
                before it is answered.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": if prefix.is_empty() { "/" } else { prefix } }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token from the configured file, or a JWT that an active \
                        key signed. On a Unix socket none is needed.",
                },
            },
        },
    })
}

fn operation(route: Route, method: &Method, schemas: &mut SchemaGenerator) -> Value {
    let (id, summary) = match route {
        Route::Issue => ("issueJwtKeyPair", "Issue a key pair, or rotate"),
        Route::List => ("listJwtKeyPairs", "List every key pair"),
        Route::Current => ("getCurrentJwtKeyPair", "The key pair that an audience signs with"),
        Route::Show => ("getJwtKeyPair", "A key pair"),
        Route::Delete => ("deleteJwtKeyPair", "Delete a key pair at once and for good"),
        Route::Invalidate => ("invalidateJwtKeyPair", "End a key pair, with a grace period"),
        Route::Reactivate => ("reactivateJwtKeyPair", "Take the end of a key pair back"),
        Route::OpenApi => ("getOpenApi", "This document"),
    };
    let mut operation = json!({ "operationId": id, "summary": summary });
    let mut parameters = Vec::new();
    if route.template().1.contains("{keyId}") {
        let schema = schemas.subschema_for::<Kid>();
        parameters
            .push(json!({ "name": "keyId", "in": "path", "required": true, "schema": schema }));
    }
    if route == Route::Current {
        let schema = schemas.subschema_for::<Audience>();
        parameters
            .push(json!({ "name": "audience", "in": "query", "required": true, "schema": schema }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    let body = match route {
        Route::Issue => Some((true, schema::<IssueRequest>(schemas))),
        Route::Invalidate => Some((false, schema::<InvalidateRequest>(schemas))),
        Route::Reactivate => Some((false, schema::<ReactivateRequest>(schemas))),
        _ => None,
    };
    if let Some((required, schema)) = body {
        let content = json!({ "application/json": { "schema": schema } });
        operation["requestBody"] = json!({ "required": required, "content": content });
    }
    if route == Route::OpenApi {
        operation["security"] = json!([]);
    }
    operation["responses"] = responses(route, method, schemas);
    operation
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

fn responses(route: Route, method: &Method, schemas: &mut SchemaGenerator) -> Value {
    let (what, good) = match route {
        Route::List => ("The key pairs", schema::<Vec<KeyPair>>(schemas)),
        Route::OpenApi => ("The document", json!({ "type": "object" })),
        Route::Delete => ("The key pair as it was", schema::<KeyPair>(schemas)),
        _ => ("The key pair", schema::<KeyPair>(schemas)),
    };
    let mut responses = json!({
        "200": { "description": what, "content": { "application/json": { "schema": good } } },
    });
    let problem =
        json!({ "application/problem+json": { "schema": schema::<ProblemDetails>(schemas) } });
    for (status, description) in refusals(route, method) {
        responses[status] = json!({ "description": description, "content": problem });
    }
    responses
}

/// The statuses beside 200 that a route may answer with.
fn refusals(route: Route, method: &Method) -> Vec<(&'static str, &'static str)> {
    let mut statuses = vec![
        ("400", "The request can't be used; the detail names the member"),
        ("408", "The request did not arrive in time"),
        ("414", "The target is too long"),
        ("431", "The header is too large"),
        ("503", "It can't be done for now: too many connections, or the disk"),
    ];
    if route == Route::OpenApi {
        return statuses;
    }
    statuses.push(("401", "The caller is not known"));
    statuses.push(("403", "The caller is known and may not"));
    if !matches!(route, Route::Issue | Route::List) {
        statuses.push(("404", "There is no such key pair"));
    }
    if route.is_change() {
        statuses.push(("409", "What lies in the key directory stands against it"));
    }
    statuses.push(("413", "The body is larger than 65536 bytes"));
    if *method == Method::POST {
        statuses.push(("415", "The body is not application/json"));
    }
    statuses
}

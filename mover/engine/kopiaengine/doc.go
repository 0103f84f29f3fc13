// Package kopiaengine implements engine.Engine with kopia. It is the only package
// that walks, uploads and restores volumes. What touches a volume goes through
// mover/beneath, names through mover/contract, repositories through
// mover/repository; kopia itself is given no path, and neither its ignore rules,
// its placeholders, its retention nor the policies in a repository have a say.
package kopiaengine

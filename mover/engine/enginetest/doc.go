// Package enginetest is for tests: the suite that every engine.Engine must pass,
// an engine that keeps everything in memory, and one that fails when told to. It
// must not be linked into anything that is shipped.
package enginetest

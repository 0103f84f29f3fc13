// Package e2e holds the end-to-end tests: the real Velero server, a real
// kubelet with real pods, a real S3 server, and Estiba installed as its users
// install it. They are compiled with the tag e2e and run inside the local
// cluster (`make test-e2e`).
package e2e

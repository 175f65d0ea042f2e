// Package strangers is a test: what somebody who depends on unknot gets. It publishes the modules of this tree to a
// proxy of files (command proxy) and uses them from modules outside the tree.
package strangers

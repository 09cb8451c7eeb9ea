from dawndusk.solver.cli import main

main()
